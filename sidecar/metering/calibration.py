"""What a prompt token, a step, an output token and its context cost here: physics at first, then what the windows have shown.

Windows are summed to blocks of a second, and every block moves the fit. The coefficients in use change only in published
versions, so that an id in a record names exact numbers for ever. The first fitted version is published once traffic has told a
step's cost from a prompt token's; until then the physics prior is in use, for as long as it takes.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from operator import mul
from typing import Any

from perjoule.sidecar.metering.fit import Fit
from perjoule.sidecar.metering.prior import RELATIVE_SD, Shape, prior
from perjoule.sidecar.metering.terms import NOTHING, Terms
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

BLOCK_NS = NS_PER_S  # a window's edges are off by some milliseconds, which is little of a second
BREAK_NS = 10 * NS_PER_MS  # windows further apart than this are not consecutive
LEAST_J, LEAST_AMOUNT = 0.1, 0.1  # a block in which less was drawn, or done, tells nothing
MEMORY_NS = 300 * NS_PER_S  # of busy time: what is this old counts for 1/e
IDENTIFIED_SD = 0.15  # of the logarithm of what a step, and what an output token as of late, costs in prompt tokens
MOVED = 0.02  # the share of energy that must have gone to another term before a new version is published
LASTING = 10  # blocks out of line in a row are no accident: what was learned before does not hold any more
OUT_OF_LINE = 2.5  # standard deviations
MOST_VERSIONS = 100
DIGITS = 6  # of published coefficients


@dataclass(frozen=True, slots=True)
class Key:
    """What a calibration holds for; None, "" and no board are what is not known. `group` is the boards by UUID, in order: two of one
    name differ by a fifth in what a step costs them, beside a prompt token."""

    gpu: str = ""
    group: tuple[str, ...] = ()
    power_limit_w: int | None = None
    model: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """Coefficients as they were published: of `prior` in units of one prompt token, of `fitted` in joules."""

    id: str
    state: str
    coefficients: Terms
    window_error: float | None
    learned_s: float
    published_unix_s: int | None = None  # the inside has no clock: told by whoever saves it

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self) | {"coefficients": list(self.coefficients)}


class Calibration:
    """The coefficients in use and the fit behind them, of one engine on one group of boards."""

    def __init__(self, key: Key = Key(), shape: Shape | None = None) -> None:
        self.key = key
        self.learned_ns = 0  # busy time
        self._prior = prior(key.gpu, shape)
        self._fit = Fit(RELATIVE_SD)
        self._missed_j = self._measured_j = 0.0  # what predictions were off by, and what they were of
        self._out_of_line = 0
        self._last_ns, self._span_ns, self._amounts, self._active_j = 0, 0, NOTHING, 0.0  # of the block that is not full yet
        self._covariance: list[list[float]] | None = None  # the answer that `relative_covariance` gave last, until the fit moves on
        self.versions: list[Version] = []
        self._publish("prior", self._prior)

    @property
    def id(self) -> str:
        """The name of the coefficients in use."""
        return self.versions[-1].id

    @property
    def state(self) -> str:
        """`prior` or `fitted`."""
        return self.versions[-1].state

    @property
    def coefficients(self) -> Terms:
        """Those in use. Only their ratios mean something."""
        return self.versions[-1].coefficients

    @property
    def relative_covariance(self) -> list[list[float]]:
        """Of the coefficients in use, each relative to itself: how sure the fit is, and how far they are from it, but for scale."""
        if self._covariance is None:  # every charge asks for it
            self._covariance = self._relative_covariance()
        return self._covariance

    def _relative_covariance(self) -> list[list[float]]:
        fit = self._fit
        if self.state == "prior" or not fit.blocks:
            return [[RELATIVE_SD**2 * (i == j) for j in range(4)] for i in range(4)]
        used = [c / p for c, p in zip(self.coefficients, self._prior, strict=True)]
        scale = sum(map(mul, fit.product, fit.theta)) / sum(map(mul, fit.product, used))
        used = [u * scale for u in used]
        off = [t / u - 1 for t, u in zip(fit.theta, used, strict=True)]
        return [[a / (used[i] * used[j]) + off[i] * off[j] for j, a in enumerate(row)] for i, row in enumerate(fit.covariance)]

    @property
    def window_error(self) -> float | None:
        """Out of sample: what blocks were off what had been predicted before they were learned from, over what was measured."""
        return self._missed_j / self._measured_j if self._measured_j else None

    def learn(self, amounts: Terms, active_j: float, t_ns: int, span_ns: int) -> None:
        """A window of `span_ns` that ended at `t_ns` took `active_j` above the loaded idle, for these amounts in all."""
        if t_ns - span_ns > self._last_ns + BREAK_NS:
            self._restart(t_ns)
        self._last_ns = t_ns
        self._amounts = self._amounts.plus(amounts)
        self._active_j += active_j
        self._span_ns += span_ns
        if self._span_ns >= BLOCK_NS:
            if self._active_j >= LEAST_J and max(self._amounts) >= LEAST_AMOUNT:
                self._learn_block()
            self._restart(t_ns)

    def _restart(self, t_ns: int) -> None:
        """Begin a block."""
        self._last_ns, self._span_ns, self._amounts, self._active_j = t_ns, 0, NOTHING, 0.0

    def _learn_block(self) -> None:
        self._covariance = None
        self.learned_ns += self._span_ns
        keep = math.exp(-self._span_ns / MEMORY_NS)
        x = [amount * p for amount, p in zip(self._amounts, self._prior, strict=True)]
        predicted_j = self._fit.predicted_j(x)
        if predicted_j is not None:
            self._missed_j = self._missed_j * keep + abs(predicted_j - self._active_j)
            self._measured_j = self._measured_j * keep + self._active_j
        z = self._fit.learn(x, self._active_j, keep)
        self._out_of_line = self._out_of_line + 1 if abs(z) > OUT_OF_LINE else 0
        if self._out_of_line == LASTING:
            self._fit, self._out_of_line = Fit(RELATIVE_SD), 0
            self._missed_j = self._measured_j = 0.0
        elif (self.state == "prior" or self._moved() > MOVED) and self._is_identified():
            self._publish("fitted", Terms(*(t * p for t, p in zip(self._fit.theta, self._prior, strict=True))))

    def _is_identified(self) -> bool:
        """Whether traffic has shown what a step costs in prompt tokens, and what an output token does in batches as of late."""
        _, steps, decode, context = self._fit.product  # the amounts of late
        return self._log_sd((0.0, 1.0, 0.0, 0.0)) < IDENTIFIED_SD and self._log_sd((0.0, steps, decode, context)) < IDENTIFIED_SD

    def _log_sd(self, amounts: tuple[float, float, float, float]) -> float:
        """The standard deviation of the logarithm of these amounts' cost in prompt tokens."""
        theta, covariance = self._fit.theta, self._fit.covariance
        cost = sum(map(mul, amounts, theta))
        if cost <= 0.0:
            return math.inf
        slope = [a / cost for a in amounts]
        slope[0] -= 1 / theta[0]
        return math.sqrt(max(0.0, sum((slope[i] * slope[j] * covariance[i][j] for i in range(4) for j in range(4)), 0.0)))

    def _moved(self) -> float:
        """The share of the energy of late that the fit gives to another term than the coefficients in use do. By no more than
        this do shares of requests differ in a window of that traffic, all added up."""
        amounts = self._fit.product
        new = [a * t for a, t in zip(amounts, self._fit.theta, strict=True)]
        old = [a * c / p for a, c, p in zip(amounts, self.coefficients, self._prior, strict=True)]
        whole_new, whole_old = sum(new), sum(old)
        return sum((abs(a / whole_new - b / whole_old) for a, b in zip(new, old, strict=True)), 0.0) / 2

    def _publish(self, state: str, coefficients: Terms) -> None:
        rounded = Terms(*(float(f"{c:.{DIGITS}g}") for c in coefficients))
        named = json.dumps([asdict(self.key), state, list(rounded)], sort_keys=True)
        version = Version(f"{state}-{hashlib.sha256(named.encode()).hexdigest()[:12]}", state, rounded, self.window_error,
                          round(self.learned_ns / NS_PER_S, 1))
        self.versions = [*self.versions[-MOST_VERSIONS + 1:], version]
        self._covariance = None

    # kept between runs

    def as_json(self, unix_s: int) -> dict[str, Any]:
        """All of it, so that `from_json` goes on from here. `unix_s` is now: versions not saved before were published then."""
        self.versions = [v if v.published_unix_s is not None else replace(v, published_unix_s=unix_s) for v in self.versions]
        return {"key": asdict(self.key) | {"group": list(self.key.group)}, "prior": list(self._prior),
                "learned_ns": self.learned_ns, "fit": self._fit.as_json(),
                "missed_j": self._missed_j, "measured_j": self._measured_j, "versions": [v.as_json() for v in self.versions]}

    @classmethod
    def from_json(cls, value: Any) -> "Calibration":
        """What `as_json` gave. Raises ValueError that says what was got and what was expected."""
        expected = {"key": dict, "prior": list, "learned_ns": int, "fit": dict, "missed_j": float, "measured_j": float, "versions": list}
        known = _checked("a calibration", value, expected)
        key = _checked("key", known["key"], dict.fromkeys((f.name for f in fields(Key)), object))
        if not isinstance(key["gpu"], str):
            raise ValueError(f"key: gpu: got {key['gpu']!r}, expected text")
        group = key["group"]
        if not isinstance(group, list) or not all(isinstance(uuid, str) for uuid in group):
            raise ValueError(f"key: group: got {group!r}, expected a list of boards' UUIDs")
        made = cls(Key(**key | {"group": tuple(group)}))
        made._prior = Terms(*_positive("prior", known["prior"]))
        made._fit = Fit.from_json(known["fit"], RELATIVE_SD)
        made.learned_ns, made._missed_j, made._measured_j = known["learned_ns"], known["missed_j"], known["measured_j"]
        made.versions = [_version(v) for v in known["versions"]]
        if not made.versions:
            raise ValueError("versions: got none, expected one or more")
        return made


def _version(value: Any) -> Version:
    expected = {"id": str, "state": str, "coefficients": list, "window_error": float | None, "learned_s": float,
                "published_unix_s": int | None}
    known = _checked("a version", value, expected)
    if known["state"] not in ("prior", "fitted"):
        raise ValueError(f"state: got {known['state']!r}, expected prior or fitted")
    return Version(**known | {"coefficients": Terms(*_positive("coefficients", known["coefficients"]))})


def _checked(name: str, value: Any, expected: Mapping[str, Any]) -> dict[str, Any]:
    """The value, if it is an object with exactly these members. Raises ValueError."""
    if not isinstance(value, dict) or value.keys() != expected.keys():
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{name}: got {got}, expected an object with {', '.join(expected)}")
    for member, kind in expected.items():
        if not isinstance(value[member], kind):
            raise ValueError(f"{name}: {member}: got {value[member]!r}, expected {kind}")
    return value


def _positive(name: str, value: Any) -> list[float]:
    """Four positive numbers. Raises ValueError."""
    if len(value) != 4 or not all(isinstance(v, float | int) and 0 < v < math.inf for v in value):
        raise ValueError(f"{name}: got {value!r}, expected four positive numbers")
    return [float(v) for v in value]
