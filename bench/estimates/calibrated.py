"""Which calibration an estimate is made with: a file, or an id among those that `perjoule serve` keeps."""

import json
from pathlib import Path

from perjoule.adapters.calibrations import CalibrationFolder
from perjoule.bench.estimates.errors import EstimateError
from perjoule.sidecar.metering.calibration import Calibration, Version
from perjoule.sidecar.settings.config import ConfigError
from perjoule.sidecar.settings.sources import calibrations_folder


def calibration_of(named: str, folder: str = "auto") -> tuple[Calibration, Version]:
    """The calibration in a file and its version in use, or the version of an id. Raises EstimateError for what is neither."""
    path = Path(named)
    if path.is_file():
        try:
            found = Calibration.from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise EstimateError(f"--calibration: {path}: {error}") from error
        return found, found.versions[-1]
    try:
        kept = [found for _, found in CalibrationFolder(calibrations_folder(folder)).kept() if isinstance(found, Calibration)]
    except ConfigError as error:
        raise EstimateError(f"--calibrations: {error}") from error
    versions = [(found, version) for found in kept for version in found.versions]
    for found, version in versions:
        if version.id == named:
            return found, version
    ids = ", ".join(version.id for _, version in versions) or "none: nothing has been learned here"
    raise EstimateError(f"--calibration: got {named!r}, no file and no id, expected one of {ids}")
