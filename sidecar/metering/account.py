"""What one request has been charged so far, and the balance of all: integers that add up at every moment."""

from dataclasses import asdict, dataclass
from math import sqrt

from perjoule.sidecar.metering.pace import Pace
from perjoule.sidecar.metering.terms import Terms
from perjoule.sidecar.metering.work import Work
from perjoule.sidecar.record import Charge, RequestFacts, Status, TokenSource
from perjoule.sidecar.units import nearest

# What is not known of a share, as parts of one standard deviation; docs/attribution.md says how each was found.
FIT_ERROR = 0.6  # of what the fit says of its coefficients: on 60 synthetic streams they were off by 0.44 to 0.68 of that
EDGE_ERROR = 0.06  # of a window in which it began or ended: when the window itself did is known to a poll of 20 ms, evenly spread
PLACEMENT_ERROR = 0.03  # of prompts computed beside others: which part of a step was whose, and in which window
RUN_ERROR = 0.017  # of what was shared: one run is not like the next, and whom a request delayed it is not charged for
RULE_ERROR = 0.5  # times the window error, of what was shared: steps cost not quite what a linear model says
UNKNOWN_WINDOW_ERROR = 0.04  # before windows have shown it
MOST_WINDOW_ERROR = 0.2  # of more it is the scale that is not known yet, which shares do not see
OPEN_ERROR = 0.20  # of what a charge that is not settled yet adds for windows that have not been divided


@dataclass(slots=True)
class Balance:
    """The law of conservation as four integers: measured == requests + idle + unattributed."""

    measured_uj: int = 0
    requests_uj: int = 0
    idle_uj: int = 0
    unattributed_uj: int = 0

    @property
    def conserved(self) -> bool:
        return self.measured_uj == self.requests_uj + self.idle_uj + self.unattributed_uj

    def plus(self, other: "Balance") -> "Balance":
        """Both together."""
        return Balance(self.measured_uj + other.measured_uj, self.requests_uj + other.requests_uj, self.idle_uj + other.idle_uj,
                       self.unattributed_uj + other.unattributed_uj)

    def as_json(self) -> dict[str, int | bool]:
        return {**asdict(self), "conserved": self.conserved}


@dataclass(slots=True)
class Rule:
    """What holds for all requests of a window. Terms cost `price` under the method in use and `model` under the energy model; of all
    that was computed in the window, `mix` is what part each term cost under the model."""

    price: Terms
    model: Terms
    mix: Terms


@dataclass(slots=True, eq=False)
class Account:
    """One open request: its work, and its charges of the windows that have been divided."""

    record_id: str
    work: Work
    model: str | None
    input_bytes: int
    running_integral: int  # of the meter, when it began: nanoseconds times requests
    tenant: str | None = None
    facts: RequestFacts | None = None
    energy_uj: int = 0
    active_uj: int = 0
    prefill_uj: int = 0
    steady_uj: int = 0
    steady_ns: int = 0
    shared_uj: int = 0
    contested_uj: int = 0  # of its prompt, while others were running
    edge_uj: int = 0
    by_prefill: float = 0.0  # of its energy: the slope by the logarithm of each coefficient of the model
    by_steps: float = 0.0
    by_decode: float = 0.0
    by_context: float = 0.0
    bias_uj: float = 0.0  # how much more the method in use charges than the energy model would
    windows: int = 0
    told: int = 0  # of them, those that were divided by steps that the engine told
    missed: bool = False  # part of its time was not measured
    concurrency_mean: float | None = None

    @property
    def begin_ns(self) -> int:
        """When it began to run."""
        return self.work.begin_ns

    def add(self, terms: Terms, energy_uj: int, active_uj: int, model_uj: float, rule: Rule, *, steady_ns: int, alone: bool,
            whole: bool, told: bool = False) -> None:
        """Its part of one window, of which the energy model would have made `model_uj`; `steady_ns` is 0 unless the window was
        steady, `whole` whether it ran from end to end, `told` whether the engine had told its steps."""
        price, model, mix = rule.price, rule.model, rule.mix
        self.windows += 1
        self.told += told
        self.energy_uj += energy_uj
        self.active_uj += active_uj
        prefill_uj = 0 if self.work.decodes else energy_uj
        if self.work.decodes and terms.prefill and (cost := terms.dot(price)) > 0.0:
            prefill_uj = min(int(energy_uj * terms.prefill * price.prefill / cost), energy_uj)
        elif self.work.first_ns is None and terms.is_nothing:  # a prompt that takes longer than was thought
            prefill_uj = energy_uj
        self.prefill_uj += prefill_uj
        self.contested_uj += 0 if alone else prefill_uj
        if steady_ns:
            self.steady_uj += energy_uj
            self.steady_ns += steady_ns
        if not whole:
            self.edge_uj += nearest(energy_uj * EDGE_ERROR)
        if alone:
            return
        self.shared_uj += energy_uj
        self.bias_uj += energy_uj - model_uj
        prefill, steps = terms.prefill * model.prefill, terms.steps * model.steps
        decode, context = terms.decode * model.decode, terms.context * model.context
        if (cost := prefill + steps + decode + context) > 0.0:
            scale = model_uj / cost
            self.by_prefill += scale * prefill - model_uj * mix.prefill
            self.by_steps += scale * steps - model_uj * mix.steps
            self.by_decode += scale * decode - model_uj * mix.decode
            self.by_context += scale * context - model_uj * mix.context

    def teach(self, pace: Pace) -> None:
        """Rates from a request whose true counts are known."""
        work, facts = self.work, self.facts
        if facts is None:
            return
        if facts.input_source is TokenSource.USAGE and facts.input_tokens and self.input_bytes:
            pace.bytes_per_token.learn(self.input_bytes, facts.input_tokens)
        if facts.output_source is not TokenSource.USAGE or not facts.output_tokens or work.end_ns is None:
            return
        if work.shown and work.first_ns is not None:
            pace.tokens_per_frame.learn(facts.output_tokens, work.shown)
            pace.learn_decode(facts.output_tokens / work.choices, work.end_ns - work.first_ns)
        elif not work.visible:
            pace.learn_decode(facts.output_tokens / work.choices, work.end_ns - work.begin_ns)

    def uncertainty_uj(self, covariance: list[list[float]], window_error: float | None, open_uj: int = 0) -> int:
        """One standard deviation of its energy, the board's gain error apart. `covariance` is that of the model's coefficients, each
        relative to itself; `window_error` is by how much of itself a second's energy differs from what the model predicts."""
        if not self.windows:
            return nearest(OPEN_ERROR * open_uj)
        a, b, c, d = self.by_prefill, self.by_steps, self.by_decode, self.by_context
        first, second, third, last = covariance
        variance = (a * (first[0] * a + first[1] * b + first[2] * c + first[3] * d)
                    + b * (second[0] * a + second[1] * b + second[2] * c + second[3] * d)
                    + c * (third[0] * a + third[1] * b + third[2] * c + third[3] * d)
                    + d * (last[0] * a + last[1] * b + last[2] * c + last[3] * d))
        rule = RULE_ERROR * (UNKNOWN_WINDOW_ERROR if window_error is None else min(window_error, MOST_WINDOW_ERROR))
        shared, edge = float(self.shared_uj), float(self.edge_uj)
        placement, later = PLACEMENT_ERROR * self.contested_uj, OPEN_ERROR * open_uj
        return nearest(sqrt(FIT_ERROR * FIT_ERROR * max(variance, 0.0) + self.bias_uj * self.bias_uj + placement * placement
                            + (RUN_ERROR * RUN_ERROR + rule * rule) * shared * shared + edge * edge + later * later))

    def charge(self, best: Status, *, method: str, source: str, boundary: str, devices: tuple[str, ...], idle_known: bool, settled: bool,
               covariance: list[list[float]], window_error: float | None, calibration_id: str | None,
               alive: bool = False, open_uj: int = 0, open_active_uj: int = 0) -> Charge:
        """The charge as it stands, plus what the open window is thought to add. `best` is the status of the source; `alive` says
        that its counter moves, so that nothing yet is a number, too."""
        if best is Status.UNAVAILABLE or (self.windows == 0 and not alive):
            return Charge(Status.UNAVAILABLE, method, source, settled, boundary=boundary, devices=devices)
        status = best
        if best is Status.MEASURED:
            status = Status.PROVISIONAL if not settled else Status.MIXED if self.missed else Status.MEASURED
        energy_uj = self.energy_uj + open_uj
        prefill_uj = None  # which phase the open window was cannot be told before it has been divided
        if self.windows:
            prefill_uj = self.prefill_uj + (open_uj if self.work.all_prompt_yet else 0)
        return Charge(
            status, method, source, settled, boundary=boundary, devices=devices, energy_uj=energy_uj,
            active_uj=self.active_uj + open_active_uj if idle_known else None, prefill_uj=prefill_uj,
            decode_uj=None if prefill_uj is None else energy_uj - prefill_uj,
            steady_uj=self.steady_uj, steady_ns=self.steady_ns,
            uncertainty_uj=self.uncertainty_uj(covariance, window_error, open_uj), calibration_id=calibration_id, windows=self.windows,
            concurrency_mean=self.concurrency_mean, evidence=self._evidence)

    @property
    def _evidence(self) -> str | None:
        if not self.windows:
            return None
        return "frames" if not self.told else "steps" if self.told == self.windows else "both"
