"""Where calibrations are kept: a folder with one JSON file for each engine, model and group of boards.

A file is replaced whole or not at all. One that cannot be read is named and left alone; it never stops anybody. Two sidecars
that write the same file keep each other's published versions; the fit to go on from is that of whoever wrote last.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from threading import get_ident
from typing import Any

import orjson

from perjoule.sidecar.metering.calibration import MOST_VERSIONS, Calibration, Key

logger = logging.getLogger(__name__)


class CalibrationFolder:
    """The files of one folder, which must be there before anything is saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, key: Key) -> Calibration | None:
        """What was learned for this key, None if nothing was. A bad file is logged and counts as nothing."""
        path = self._path(key)
        try:
            found = _read(path)
            if found.key != key:
                raise ValueError(f"key: got {found.key}, expected {key}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("calibration %s cannot be used, learning begins anew: %s", path, error)
            return None
        return found

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep what `Calibration.as_json` gave, beside the versions that are there already. Raises OSError."""
        path = self._path(Key(**state["key"] | {"group": tuple(state["key"]["group"])}))
        versions = {version["id"]: version for version in state["versions"]}
        try:
            before = {version.id: version.as_json() for version in _read(path).versions}
        except (OSError, ValueError):
            before = {}
        others = [version for name, version in before.items() if name not in versions]
        told = dict(state) | {"versions": [*others, *versions.values()][-MOST_VERSIONS:]}
        beside = path.with_suffix(f".{os.getpid()}-{get_ident()}")
        try:
            with beside.open("wb") as file:
                file.write(orjson.dumps(told, option=orjson.OPT_INDENT_2))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def kept(self) -> Iterator[tuple[Path, Calibration | str]]:
        """Every file, and its calibration or why it is none."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                yield path, _read(path)
            except (OSError, ValueError) as error:
                yield path, str(error)

    def _path(self, key: Key) -> Path:
        return self._folder / f"{hashlib.sha256(orjson.dumps(astuple(key))).hexdigest()[:16]}.json"


def _read(path: Path) -> Calibration:
    """The calibration of a file. Raises OSError and ValueError."""
    return Calibration.from_json(orjson.loads(path.read_bytes()))
