"""Flags, `PERJOULE_*` environment and one TOML file, which all mean the same things; nothing else reads the environment.

Every setting is one field of `Config`; its flag, variable and key follow from its name (`ledger_days` is `--ledger-days`,
`PERJOULE_LEDGER_DAYS` and `ledger_days = 30`). A flag wins over the environment, the environment over the file.
"""

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from perjoule.sidecar.pools import Pools, read_pools
from perjoule.sidecar.weighing import METHODS

PREFIX = "PERJOULE_"
EVERYWHERE = {"0.0.0.0", "::", "localhost", "127.0.0.1", "::1"}  # noqa: S104  names by which this host reaches itself
BOUNDS = {"max_num_seqs": (0, 1_000_000), "poll_ms": (1, 1000), "ledger_days": (1, 36_500), "ledger_mb": (1, 10_000_000),
          "workers": (1, 1024), "max_body_mb": (1, 100_000), "connect_timeout_s": (0.001, 3600.0),
          "slow_reader_s": (0.001, 86_400.0), "drain_s": (0.0, 86_400.0)}


class ConfigError(ValueError):
    """A setting that cannot be used; the text names where it came from, what was got and what was expected."""


def setting(default: Any, text: str, *, choices: Sequence[str] = (), metavar: str | None = None) -> Any:
    """A field of Config with what its flag needs."""
    return field(default=default, metadata={"help": text, "choices": tuple(choices), "metavar": metavar})


def state_folder() -> Path:
    """Where durable state lives: `$XDG_STATE_HOME/perjoule`, else `~/.local/state/perjoule` (XDG Base Directory 0.8).
    Raises ConfigError for a user without a home, as a container may have one."""
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "perjoule"
    except RuntimeError as error:
        raise ConfigError(f"no folder for state: {error} Name a file with --ledger, or set XDG_STATE_HOME") from error


def calibrations_folder(told: str) -> Path:
    """What `--calibrations` names; for `auto` it is in the state folder. Raises ConfigError."""
    return state_folder() / "calibrations" if told == "auto" else Path(told)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything `perjoule serve` can be told."""

    upstream: str = setting("", "the inference server to stand in front of", metavar="URL")
    listen: str = setting("127.0.0.1:9000", "where clients connect", metavar="HOST:PORT")
    admin: str = setting("127.0.0.1:9464", "the operator's port: /metrics /livez /readyz /energy", metavar="HOST:PORT")
    engine: str = setting("auto", "the upstream's dialect", choices=("auto", "vllm", "sglang", "tgi", "diffusion", "openai"))
    energy: str = setting("auto", "auto | nvml | zeus | dcgm:URL | replay:FILE | simulated[:URL]", metavar="SOURCE")
    gpus: str = setting("all", "the boards that serve this engine: one group, a group for each data-parallel rank (0=UUID,…;1=UUID,…), "
                        "or for each stage (prefill=UUID,…;decode=UUID,…)", metavar="all|UUID,…|0=UUID,…;1=…")
    method: str = setting("step-model", "how a window is divided", choices=METHODS)
    max_num_seqs: int = setting(0, "the engine's largest batch, for steady-state marking (0: not known)", metavar="N")
    poll_ms: int = setting(20, "how often the energy counter is read", metavar="MS")
    headers: bool = setting(True, "X-Energy-* headers on answers that are not streamed")
    comment: bool = setting(True, "the `: energy {json}` comment at the end of streams")
    trailers: bool = setting(True, "X-Energy-* trailers for clients that send `TE: trailers`")
    ask_usage: bool = setting(True, "ask the engine for usage in streams, and hide it from clients who did not ask")
    ledger: str = setting("auto", "SQLite file for records; off keeps none; auto is in the state folder", metavar="FILE|off")
    ledger_days: int = setting(30, "records older than this are dropped", metavar="DAYS")
    ledger_mb: int = setting(1024, "the oldest records are dropped beyond this size", metavar="MB")
    calibrations: str = setting("auto", "folder for what the step model has learned; off keeps none; auto is in the state folder",
                                metavar="FOLDER|off")
    otlp: str = setting("", "OTLP endpoint for spans, http(s)://host:4318, or grpc://host:4317", metavar="URL")
    workers: int = setting(1, "processes that share the port", metavar="N")
    max_body_mb: int = setting(64, "request bodies larger than this are refused with 413", metavar="MB")
    connect_timeout_s: float = setting(5.0, "how long to wait for the engine to accept a connection", metavar="S")
    slow_reader_s: float = setting(30.0, "a client that takes nothing for this long is cut off", metavar="S")
    drain_s: float = setting(30.0, "how long running requests may go on after SIGTERM", metavar="S")
    log_level: str = setting("info", "what goes to standard error", choices=("debug", "info", "warning", "error"))

    def address(self, name: str) -> tuple[str, int]:
        """`listen` or `admin` as (host, port). Raises ConfigError."""
        text: str = getattr(self, name)
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ConfigError(f"--{name}: got {text!r}, expected HOST:PORT, e.g. 127.0.0.1:9000")
        return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  an empty host asks for every interface

    def pools(self) -> Pools:
        """What `gpus` says. Raises ConfigError."""
        try:
            return read_pools(self.gpus)
        except ValueError as error:
            raise ConfigError(f"--gpus: {error}") from error

    def checked(self) -> "Config":
        """Itself, if every setting can be used. Raises ConfigError."""
        self._check_upstream()
        self.address("admin")
        self.pools()
        for name, (least, most) in BOUNDS.items():
            if not least <= getattr(self, name) <= most:  # refuses NaN, too
                raise ConfigError(f"--{name.replace('_', '-')}: got {getattr(self, name)}, expected {least} to {most}")
        return self

    def _check_upstream(self) -> None:
        if not self.upstream:
            raise ConfigError("--upstream is required: the inference server to stand in front of, http://HOST:PORT")
        try:
            parts = urlsplit(self.upstream)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise ConfigError(f"--upstream: got {self.upstream!r}, expected http://HOST:PORT: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--upstream: got {self.upstream!r}, expected http://HOST:PORT")
        if parts.query or parts.fragment or parts.username is not None:
            raise ConfigError("--upstream: got a URL with a user, a query or a fragment, expected http://HOST:PORT")
        host, listening = self.address("listen")
        if port == listening and (parts.hostname == host or {parts.hostname, host} <= EVERYWHERE):
            raise ConfigError(f"--upstream: got {self.upstream!r}, which is where this sidecar itself would listen")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` a flag for every setting. An absent flag leaves no trace, so that environment and file can speak."""
    parser.add_argument("--config", metavar="FILE", help="a TOML file with any of these settings (dashes become underscores)")
    for f in fields(Config):
        flag = "--" + f.name.replace("_", "-")
        default = {"True": "yes", "False": "no", "": "none"}.get(str(f.default), f.default)
        text = f"{f.metadata['help']} (default: {default})"
        if f.type is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(flag, type=f.type if callable(f.type) else str, default=argparse.SUPPRESS, help=text,
                                choices=f.metadata["choices"] or None, metavar=f.metadata["metavar"])


def load(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """One Config out of flags, environment and file, checked. Raises ConfigError."""
    values: dict[str, Any] = {}
    path = flags.get("config") or environ.get(PREFIX + "CONFIG")
    if path:
        values.update(_from_file(Path(path)))
    for f in fields(Config):
        name = PREFIX + f.name.upper()
        if name in environ:
            values[f.name] = _typed(f.name, environ[name], f.type, name)
    values.update((f.name, flags[f.name]) for f in fields(Config) if f.name in flags)
    return Config(**values).checked()


def _from_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    known = {f.name: f.type for f in fields(Config)}
    for key in table:
        if key not in known:
            raise ConfigError(f"{path}: unknown setting {key!r}, expected one of {', '.join(sorted(known))}")
    return {key: _typed(key, value, known[key], f"{path}: {key}") for key, value in table.items()}


def _typed(name: str, value: Any, kind: Any, where: str) -> Any:
    """The value as the setting's type; text from the environment is read, a value of another type is refused."""
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    if isinstance(value, str) and kind is bool and value.lower() in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        value = value.lower() in ("1", "true", "yes", "on")
    elif (isinstance(value, str) and kind in (int, float)) or (kind is float and type(value) is int):
        try:
            value = kind(value)
        except ValueError:
            raise ConfigError(f"{where}: got {value!r}, expected {expected}") from None
    if type(value) is not kind:
        raise ConfigError(f"{where}: got {value!r}, expected {expected}")
    choices = next(f.metadata["choices"] for f in fields(Config) if f.name == name)
    if choices and value not in choices:
        raise ConfigError(f"{where}: got {value!r}, expected one of {', '.join(choices)}")
    return value
