"""What a reload changes: which settings hold from now on, and which were read once, when something was opened with them."""

import re
from dataclasses import dataclass, fields, replace
from typing import Any

from perjoule.sidecar.settings.config import Config

AT_RESTART = frozenset({"upstream", "listen", "admin", "socket_mode", "engine", "steps", "energy", "energy_token_file",
                        "energy_tls_ca", "gpus", "method", "max_num_seqs", "poll_ms",
                        "ledger", "ledger_days", "ledger_mb", "ledger_minute_days", "ledger_hour_days",
                        "calibrations", "otlp", "workers", "max_connections", "connect_timeout_s", "slow_sender_s", "job_hours",
                        "admin_token_file", "events", "events_token_file", "grid", "grid_token_file"})


@dataclass(frozen=True, slots=True)
class Changes:
    """`config` is what to go by: the new settings, but for those that hold after a restart only. Each change is said in a few words."""

    config: Config
    now: tuple[str, ...]
    at_restart: tuple[str, ...]


def changes(old: Config, new: Config) -> Changes:
    """What differs."""
    texts: dict[bool, list[str]] = {True: [], False: []}
    kept: dict[str, Any] = {}
    for f in fields(Config):
        before, after = getattr(old, f.name), getattr(new, f.name)
        if before != after:
            waits = f.name in AT_RESTART
            texts[waits].append(f"{f.name} {_said(before)} -> {_said(after)}")
            if waits:
                kept[f.name] = before
    return Changes(replace(new, **kept), tuple(texts[False]), tuple(texts[True]))


def _said(value: Any) -> str:
    """A value for the log, which must not have the password of a URL: https://user:… or ?password=…"""
    return re.sub(r"(://[^:/@'\"]*:).*@|(\bpassword=)[^&'\"]*", r"\1\2***", repr(value))
