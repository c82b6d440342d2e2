"""What a reload changes: which settings hold from now on, and which were read once, when something was opened with them."""

from dataclasses import dataclass, fields, replace
from typing import Any

from perjoule.sidecar.settings.config import Config

AT_RESTART = frozenset({"upstream", "listen", "admin", "socket_mode", "engine", "energy", "gpus", "method", "max_num_seqs", "poll_ms",
                        "ledger", "ledger_days", "ledger_mb", "calibrations", "otlp", "workers", "max_connections", "connect_timeout_s",
                        "slow_sender_s", "admin_token_file"})


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
            texts[waits].append(f"{f.name} {before!r} -> {after!r}")
            if waits:
                kept[f.name] = before
    return Changes(replace(new, **kept), tuple(texts[False]), tuple(texts[True]))
