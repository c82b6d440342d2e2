"""The carbon intensity of the grid: one number, a file, Electricity Maps or WattTime; each value with its source, time, kind and unit.

    fixed:G_PER_KWH[:marginal]   that, from now on
    file:PATH                    CSV or JSON: start, g_per_kwh, and kind if it is not average; the last row says where the series ends
    electricitymaps:ZONE         average, lifecycle CO2eq (API v3; the token is the `auth-token`)
    watttime:REGION              marginal CO2 (API v3, signal co2_moer; the token is USER:PASSWORD)
"""

import csv
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from perjoule.sidecar.footprint.carbon import Intensity, Kind, intensity
from perjoule.sidecar.footprint.prices import read_instant
from perjoule.sidecar.telemetry import SCOPE
from perjoule.sidecar.units import NS_PER_S

ELECTRICITY_MAPS, WATTTIME = "https://api.electricitymaps.com", "https://api.watttime.org"
TIMEOUT_S = 10.0
HOUR_NS = 3_600 * NS_PER_S
DAY_S = 86_400
EVERY_S = 300.0  # how often a sidecar asks
GRANULARITIES_S = {"5_minutes": 300, "15_minutes": 900, "hourly": 3_600, "daily": 86_400}  # Electricity Maps' temporalGranularity
MOER_PERIOD_S = 300  # WattTime's, unless it says otherwise


class GridError(ValueError):
    """A source that has no intensity now; the text says what was got and what was expected."""


class GridSource(Protocol):
    """Where intensities come from; blocks. `back_s` is how far back to ask: what it has said of the past may have changed."""

    back_s: int

    def fetch(self, since_unix_ns: int, until_unix_ns: int) -> list[Intensity]:
        """What it says of [since, until), or of more. Raises GridError."""


class Fixed:
    """One number for all times, by the hour."""

    back_s = 0

    def __init__(self, g_per_kwh: Decimal, kind: Kind) -> None:
        self._g_per_kwh, self._kind = g_per_kwh, kind

    def fetch(self, since_unix_ns: int, until_unix_ns: int) -> list[Intensity]:
        first = since_unix_ns - since_unix_ns % HOUR_NS
        return [intensity("fixed", "", self._kind, begin, begin + HOUR_NS, self._g_per_kwh, "gCO2eq/kWh")
                for begin in range(first, until_unix_ns, HOUR_NS)]


class File:
    """A series in a file, which is read again each time."""

    back_s = DAY_S

    def __init__(self, path: Path) -> None:
        self._path = path

    def fetch(self, since_unix_ns: int, until_unix_ns: int) -> list[Intensity]:
        try:
            rows = read_rows(self._path.read_text())
            times = [read_instant(str(row["start"])) for row in rows]
            if times != sorted(set(times)) or len(times) < 2:
                raise ValueError("expected at least two rows, each later than the one before it; the last one says where the series ends")
            found = [intensity("file", self._path.name, Kind(row.get("kind") or Kind.AVERAGE), begin, until,
                               _number(row["g_per_kwh"]), "gCO2eq/kWh")
                     for row, (begin, until) in zip(rows, pairwise(times), strict=False)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise GridError(f"{self._path}: {text}") from error
        return [each for each in found if each.begin_unix_ns < until_unix_ns and each.until_unix_ns > since_unix_ns]


class _Api:
    """A server that is asked over HTTP and answers JSON."""

    def __init__(self, base: str) -> None:
        import requests

        self._base = base
        self._session = requests.Session()
        self._session.headers["User-Agent"] = SCOPE

    def _get(self, path: str, query: Mapping[str, str], **more: Any) -> tuple[int, Any]:
        import requests

        try:
            answer = self._session.get(self._base + path, params=dict(query), timeout=TIMEOUT_S, allow_redirects=False, **more)
            return answer.status_code, json.loads(answer.text, parse_float=Decimal) if answer.ok else None
        except (requests.RequestException, ValueError) as error:
            raise GridError(f"{self._base}{path}: {type(error).__name__}: {error}") from error


class ElectricityMaps(_Api):
    """The last 24 hours of a zone; later answers correct what was estimated."""

    back_s = DAY_S

    def __init__(self, zone: str, token: str, base: str = ELECTRICITY_MAPS) -> None:
        super().__init__(base)
        self._zone, self._header = zone, {"auth-token": token}

    def fetch(self, since_unix_ns: int, until_unix_ns: int) -> list[Intensity]:
        path = "/v3/carbon-intensity/history"
        status, told = self._get(path, {"zone": self._zone}, headers=self._header, auth=_as_it_is)
        if status != 200:
            raise GridError(f"{self._base}{path}: got HTTP {status} for zone {self._zone}, expected 200")
        try:
            return [self._point(row) for row in told.get("history", told.get("data")) if row["carbonIntensity"] is not None]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise GridError(f"{self._base}{path}: got another shape than API v3 has: {type(error).__name__}: {error}") from error

    def _point(self, row: Mapping[str, Any]) -> Intensity:
        begin = read_instant(row["datetime"])
        span_s = GRANULARITIES_S[row.get("temporalGranularity") or "hourly"]
        return intensity("electricitymaps", self._zone, Kind.AVERAGE, begin, begin + span_s * NS_PER_S, _number(row["carbonIntensity"]),
                         "gCO2eq/kWh", row.get("isEstimated"))


class WattTime(_Api):
    """Marginal operating emission rates of a region."""

    back_s = DAY_S

    def __init__(self, region: str, user_and_password: str, base: str = WATTTIME) -> None:
        super().__init__(base)
        user, colon, password = user_and_password.partition(":")
        if not colon:
            raise ValueError("--grid-token-file: expected USER:PASSWORD for watttime")
        self._region, self._login, self._token = region, (user, password), ""

    def fetch(self, since_unix_ns: int, until_unix_ns: int) -> list[Intensity]:
        query = {"region": self._region, "signal_type": "co2_moer", "start": _iso(since_unix_ns), "end": _iso(until_unix_ns)}
        path = "/v3/historical"
        told: Any = None
        status, told = self._asked(path, query) if self._token else (401, None)
        if status == 401:  # a token holds for half an hour
            self._token = self._new_token()
            status, told = self._asked(path, query)
        if status != 200:
            raise GridError(f"{self._base}{path}: got HTTP {status} for region {self._region}, expected 200")
        try:
            meta = told["meta"]
            span_ns = int(meta.get("data_point_period_seconds") or MOER_PERIOD_S) * NS_PER_S
            return [intensity("watttime", meta["region"], Kind.MARGINAL, begin, begin + span_ns, _number(row["value"]), meta["units"])
                    for row in told["data"] if (begin := read_instant(row["point_time"]))]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise GridError(f"{self._base}{path}: got another shape than API v3 has: {type(error).__name__}: {error}") from error

    def _asked(self, path: str, query: Mapping[str, str]) -> tuple[int, Any]:
        return self._get(path, query, headers={"Authorization": f"Bearer {self._token}"}, auth=_as_it_is)

    def _new_token(self) -> str:
        status, told = self._get("/login", {}, auth=self._login)
        if status != 200 or not isinstance(told, dict) or not isinstance(told.get("token"), str):
            raise GridError(f"{self._base}/login: got HTTP {status}, expected 200 with a token")
        return str(told["token"])


def open_grid(text: str, token: str | None) -> GridSource:
    """What `--grid` says. Raises ValueError."""
    source, _, what = text.partition(":")
    if source == "fixed" and what:
        number, _, kind = what.partition(":")
        if kind not in ("", *Kind):
            raise ValueError(f"--grid: got the kind {kind!r}, expected average or marginal")
        try:
            fixed = Fixed(_number(number), Kind(kind or Kind.AVERAGE))
        except ValueError as error:
            raise ValueError(f"--grid: {error} of g/kWh") from None
        fixed.fetch(0, 1)  # whether it can be
        return fixed
    if source == "file" and what:
        found = File(Path(what))
        found.fetch(0, 1)  # whether it can be read
        return found
    if source in ("electricitymaps", "watttime") and what:
        if token is None:
            raise ValueError(f"--grid: {source} needs a token, expected --grid-token-file")
        return ElectricityMaps(what, token) if source == "electricitymaps" else WattTime(what, token)
    raise ValueError(f"--grid: got {text!r}, expected fixed:G_PER_KWH, file:PATH, electricitymaps:ZONE or watttime:REGION")


def read_rows(text: str) -> list[dict[str, Any]]:
    """The rows of a series in JSON (a list of objects) or CSV. Raises ValueError."""
    if not text.lstrip().startswith("["):
        return list(csv.DictReader(io.StringIO(text)))
    rows = json.loads(text, parse_float=Decimal)
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected a list of objects with start and g_per_kwh")
    return list(rows)


def _number(value: Any) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"got {value!r}, expected a number") from None


def _iso(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns // NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _as_it_is(request: Any) -> Any:
    """No other credentials than those that were given: nothing out of a netrc."""
    return request
