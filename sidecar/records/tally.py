"""What all settled records add up to: counts, sums and distributions by model and by tenant, for whoever shows metrics."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate, chain

from perjoule.sidecar import telemetry
from perjoule.sidecar.record import EnergyRecord, Outcome
from perjoule.sidecar.telemetry import Metric
from perjoule.sidecar.units import NS_PER_S, UJ_PER_J

MODELS = 50  # clients choose model names: without a bound they could fill the memory of us and of who reads the metrics
TENANTS = 200
LINES = 400  # of models, endpoints, engines, outcomes and statuses together
LABEL_CHARS = 200  # of what clients choose
OTHER = "other"  # those that came after the bound was reached
UNKNOWN = "unknown"
SCALES = {"J": UJ_PER_J, "s": NS_PER_S}  # amounts are integers until they are shown
INPUT, OUTPUT = "input", "output"

Labels = tuple[str, ...]
Exemplar = tuple[str, float, int]
"""One that fell into a bucket: its trace id, its value, and when it ended (Unix ns)."""


class Spread:
    """A distribution at one moment: how many values were at most each bound, and above all; their sum; the latest one of each bucket
    whose trace is known."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: tuple[float, ...], counts: tuple[int, ...], total: float, exemplars: Mapping[int, Exemplar]) -> None:
        self.bounds, self.counts, self.total, self.exemplars = bounds, counts, total, exemplars

    @property
    def cumulative(self) -> list[int]:
        """As Prometheus counts: each bucket with all below it."""
        return list(accumulate(self.counts))


Value = float | Spread
Shown = dict[Metric, dict[Labels, Value]]
"""Every metric at one moment, by the values of its labels; nothing for what is not known."""

Amount = int | float  # not `float` alone: compiled, that would make floats of integers, which are exact however large
_Told = Iterable[tuple[Metric, Labels, Amount | None]]


class Tally:
    """Counts records. Of models the first 50 and of tenants the first 200 are told apart, the others are one.

    `add` runs for each request on the event loop: what has the same labels shares one `_Line`, which is found by one look.
    """

    def __init__(self, look: Callable[[], Shown] = dict) -> None:
        """`look` tells the metrics that are looked up whenever all are shown: gauges, the balance, the outboxes' counts."""
        self._look = look
        self._models: set[str] = set()
        self._tenants: set[str] = set()
        self._lines: dict[tuple[str | None, ...], _Line] = {}
        self._accounts: dict[tuple[str, str, str], _Account] = {}
        self._spreads: dict[tuple[Metric, Labels], _Growing] = {}

    def add(self, *records: EnergyRecord) -> None:
        """Count requests that have ended."""
        for record in records:
            self._add(record)

    def _add(self, record: EnergyRecord) -> None:
        facts, charge = record.facts, record.charge
        line = self._lines.get((facts.model, facts.endpoint, facts.engine, facts.outcome, charge.status)) or self._line(record)
        account = self._accounts.get((facts.tenant or UNKNOWN, facts.outcome, charge.status)) or self._account(record)
        trace_id, ended_ns = facts.trace_id, facts.arrival_unix_ns + facts.end_ns
        line.requests += 1
        account.requests += 1
        line.duration.add(facts.end_ns, trace_id, ended_ns)
        input_tokens, output_tokens, first_ns = facts.input_tokens, facts.output_tokens, facts.first_token_ns
        if input_tokens is not None:
            line.input_tokens.add(input_tokens, None, 0)
            account.input_tokens = (account.input_tokens or 0) + input_tokens
        if output_tokens is not None:
            line.output_tokens.add(output_tokens, None, 0)
            account.output_tokens = (account.output_tokens or 0) + output_tokens
        if first_ns is not None and facts.outcome is not Outcome.ERRORED:
            line.first_token.add(first_ns, trace_id, ended_ns)
            last_ns = facts.last_token_ns
            if output_tokens is not None and output_tokens > 1 and last_ns is not None and last_ns >= first_ns:
                line.token_time.add(-((first_ns - last_ns) // (output_tokens - 1)), trace_id, ended_ns)  # rounded up: its bucket stays
        if facts.cached_tokens is not None:
            line.cached_tokens = (line.cached_tokens or 0) + facts.cached_tokens
        if facts.reasoning_tokens is not None:
            line.reasoning_tokens = (line.reasoning_tokens or 0) + facts.reasoning_tokens
        if facts.unit is not None and facts.units is not None:
            line.add_units(facts.unit, facts.units, charge.energy_uj)
        if charge.energy_uj is not None:
            line.energy.add(charge.energy_uj, trace_id, ended_ns)
            account.energy_uj = (account.energy_uj or 0) + charge.energy_uj
            if charge.prefill_uj is not None and charge.decode_uj is not None:
                line.prefill_uj = (line.prefill_uj or 0) + charge.prefill_uj
                line.decode_uj = (line.decode_uj or 0) + charge.decode_uj
            if charge.steady_uj is not None and charge.steady_ns is not None:
                line.steady_uj = (line.steady_uj or 0) + charge.steady_uj
                line.steady_ns = (line.steady_ns or 0) + charge.steady_ns

    def shown(self) -> Shown:
        """Everything as it is now; later records do not change what was answered."""
        out = dict(self._look())
        told: list[_Told] = [line.told() for line in {id(line): line for line in self._lines.values()}.values()]
        told += [account.told(*key) for key, account in self._accounts.items()]
        for (metric, labels), spread in self._spreads.items():
            if spread.count:
                out.setdefault(metric, {})[labels] = spread.shown()
                if metric is telemetry.TOKEN_SIZES:
                    told.append([(telemetry.TOKENS, (labels[0], labels[-1]), spread.total)])
        sums: dict[Metric, dict[Labels, Amount]] = {}
        for metric, labels, amount in chain.from_iterable(told):
            if amount is not None:
                of_metric = sums.setdefault(metric, {})
                of_metric[labels] = of_metric.get(labels, 0) + amount
        for metric, amounts in sums.items():
            scale = SCALES.get(metric.unit)
            out[metric] = {labels: amount / scale if scale else amount for labels, amount in amounts.items()}
        return out

    def _line(self, record: EnergyRecord) -> "_Line":
        """The line of a record whose labels have not been seen together before, or whose model has no line of its own."""
        facts, status = record.facts, record.charge.status
        model = _bounded(facts.model, self._models, MODELS)
        key = (model, facts.endpoint, facts.engine, facts.outcome, status)
        if key not in self._lines and len(self._lines) >= LINES:
            key = (OTHER, *key[1:])
        if key not in self._lines:
            self._lines[key] = _Line(key, self._spread)
        if facts.model is None:  # its key is another one than its label
            self._lines[None, facts.endpoint, facts.engine, facts.outcome, status] = self._lines[key]
        return self._lines[key]

    def _account(self, record: EnergyRecord) -> "_Account":
        tenant = _bounded(record.facts.tenant, self._tenants, TENANTS)
        return self._accounts.setdefault((tenant, record.facts.outcome, record.charge.status), _Account())

    def _spread(self, metric: Metric, *labels: str) -> "_Growing":
        return self._spreads.setdefault((metric, labels), _Growing(metric))


class _Growing:
    """A distribution that values are added to: in integers, nanoseconds and microjoules, so that its sum is exact."""

    __slots__ = ("_above", "_bounds", "_counts", "_exemplars", "_place", "_scale", "_shown_bounds", "_upto", "total")

    def __init__(self, metric: Metric) -> None:
        self._scale = SCALES.get(metric.unit, 1)
        self._shown_bounds = metric.buckets
        self._bounds = [int(bound * self._scale) for bound in metric.buckets]  # a whole number is above both or neither
        self._counts = [0] * (len(metric.buckets) + 1)
        self._exemplars: dict[int, tuple[str, int, int]] = {}
        self._place = self._above = self._upto = 0  # the bucket found last; what is above the second and up to the third falls into it
        self.total = 0

    def add(self, value: int, trace_id: str | None, ended_unix_ns: int) -> None:
        """One more, of a request that ended then."""
        if not self._above < value <= self._upto:
            self._find(value)
        place = self._place
        self._counts[place] += 1
        self.total += value
        if trace_id is not None:
            self._exemplars[place] = (trace_id, value, ended_unix_ns)

    def _find(self, value: int) -> None:
        """Look for its bucket, where the next values may fall, too."""
        bounds = self._bounds
        self._place = place = bisect_left(bounds, value)
        self._above = bounds[place - 1] if place > 0 else value - 1
        self._upto = bounds[place] if place < len(bounds) else value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def shown(self) -> Spread:
        """What it is now."""
        exemplars = {place: (trace_id, value / self._scale, t_ns) for place, (trace_id, value, t_ns) in self._exemplars.items()}
        return Spread(self._shown_bounds, tuple(self._counts), self.total / self._scale, exemplars)


class _Line:
    """What records of the same model, endpoint, engine, outcome and status add up to."""

    __slots__ = ("_key", "cached_tokens", "decode_uj", "duration", "energy", "first_token", "input_tokens", "output_tokens", "prefill_uj",
                 "reasoning_tokens", "requests", "steady_ns", "steady_uj", "token_time", "units")

    def __init__(self, key: Labels, spread: Callable[..., "_Growing"]) -> None:
        self._key = model, endpoint, engine, outcome, status = key
        self.requests = 0
        self.units: dict[str, tuple[float, int | None]] = {}  # of each unit: how many, and what they cost
        self.prefill_uj: int | None = None
        self.decode_uj: int | None = None
        self.steady_uj: int | None = None
        self.steady_ns: int | None = None
        self.cached_tokens: int | None = None
        self.reasoning_tokens: int | None = None
        self.duration = spread(telemetry.DURATION, model, endpoint, engine, outcome)
        self.first_token = spread(telemetry.FIRST_TOKEN, model, endpoint, engine)
        self.token_time = spread(telemetry.TOKEN_TIME, model, endpoint, engine)
        self.input_tokens = spread(telemetry.TOKEN_SIZES, model, endpoint, engine, INPUT)
        self.output_tokens = spread(telemetry.TOKEN_SIZES, model, endpoint, engine, OUTPUT)
        self.energy = spread(telemetry.ENERGY_SIZES, model, status)

    def add_units(self, unit: str, units: float, energy_uj: int | None) -> None:
        """What a request made that is not tokens, and what it cost."""
        so_far, uj = self.units.get(unit, (0, None))
        self.units[unit] = so_far + units, uj if energy_uj is None else (uj or 0) + energy_uj

    def told(self) -> _Told:
        model, endpoint, engine, outcome, status = self._key
        made: _Told = chain.from_iterable(((telemetry.UNITS, (model, unit), units), (telemetry.UNIT_JOULES, (model, unit, status), uj))
                                          for unit, (units, uj) in self.units.items())
        return [*made,
                (telemetry.REQUESTS, (model, endpoint, outcome), self.requests),
                (telemetry.REQUEST_JOULES, (model, outcome, "prefill", status), self.prefill_uj),
                (telemetry.REQUEST_JOULES, (model, outcome, "decode", status), self.decode_uj),
                (telemetry.CACHED_TOKENS, (model, endpoint, engine), self.cached_tokens),
                (telemetry.REASONING_TOKENS, (model, endpoint, engine), self.reasoning_tokens),
                (telemetry.STEADY_JOULES, (model, status), self.steady_uj), (telemetry.STEADY_SECONDS, (model,), self.steady_ns)]


class _Account:
    """What records of the same tenant, outcome and status add up to."""

    __slots__ = ("energy_uj", "input_tokens", "output_tokens", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.energy_uj: int | None = None
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None

    def told(self, tenant: str, outcome: str, status: str) -> _Told:
        return [(telemetry.TENANT_REQUESTS, (tenant, outcome), self.requests),
                (telemetry.TENANT_JOULES, (tenant, outcome, status), self.energy_uj),
                (telemetry.TENANT_TOKENS, (tenant, INPUT), self.input_tokens),
                (telemetry.TENANT_TOKENS, (tenant, OUTPUT), self.output_tokens)]


def _bounded(name: str | None, known: set[str], most: int) -> str:
    name = (name or UNKNOWN)[:LABEL_CHARS].encode("utf-8", "replace").decode()
    if name not in known:
        if len(known) >= most:
            return OTHER
        known.add(name)
    return name
