"""Flags, `PERJOULE_*` environment and one TOML file, which all mean the same things; nothing else reads the environment.

A flag wins over the environment, the environment over the file.
"""

import argparse
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from perjoule.sidecar.settings.config import Config, ConfigError

PREFIX = "PERJOULE_"


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
    """One Config out of flags, environment and file, checked. Raises ConfigError, which says where the setting at fault was made."""
    values: dict[str, Any] = {}
    made_in: dict[str, str] = {}  # the file's line or the variable, of what was not made by a flag
    path = flags.get("config") or environ.get(PREFIX + "CONFIG")
    if path:
        values.update(_from_file(Path(path), made_in))
    for f in fields(Config):
        name = PREFIX + f.name.upper()
        if name in environ:
            values[f.name], made_in[f.name] = _typed(f.name, environ[name], f.type, name), name
        if f.name in flags:
            values[f.name] = flags[f.name]
            made_in.pop(f.name, None)
    try:
        return Config(**values).checked()
    except ConfigError as error:
        flag, colon, text = str(error).partition(":")
        where = made_in.get(flag.removeprefix("--").replace("-", "_"))
        if where is None or not colon:
            raise
        raise ConfigError(f"{where}:{text}") from error


def _from_file(path: Path, made_in: dict[str, str]) -> dict[str, Any]:
    try:
        text = path.read_text()
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"--config: cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # tomllib lets some of them through as they are
        raise ConfigError(f"{path}: not TOML: {error}") from error
    known = {f.name: f.type for f in fields(Config)}
    for key in table:
        before = re.search(rf"^[^\S\n]*[\"']?{re.escape(key)}\b", text, re.MULTILINE)
        where = f"{path}, line {text.count(chr(10), 0, before.start()) + 1}" if before else str(path)
        made_in[key] = f"{where}: {key}"
        if key not in known:
            raise ConfigError(f"{where}: unknown setting {key!r}, expected one of {', '.join(sorted(known))}")
    return {key: _typed(key, value, known[key], made_in[key]) for key, value in table.items()}


def _typed(name: str, value: Any, kind: Any, where: str) -> Any:
    """The value as the setting's type; text from the environment is read, a value of another type is refused."""
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    if isinstance(value, str) and kind is bool and value.lower() in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        value = value.lower() in ("1", "true", "yes", "on")
    elif (isinstance(value, str) and kind in (int, float)) or (kind is float and type(value) is int):
        try:
            value = kind(value)
        except (ValueError, OverflowError):
            raise ConfigError(f"{where}: got {value!r}, expected {expected}") from None
    if type(value) is not kind:
        raise ConfigError(f"{where}: got {value!r}, expected {expected}")
    choices = next(f.metadata["choices"] for f in fields(Config) if f.name == name)
    if choices and value not in choices:
        raise ConfigError(f"{where}: got {value!r}, expected one of {', '.join(choices)}")
    return value


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
