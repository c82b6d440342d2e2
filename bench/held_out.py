"""Cross-validation of the step model: fitted on some recordings, held still while it is judged on others.

The calibration is the sidecar's own, and it learns from the traffic as in production: by the meter that plays it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from perjoule.bench.recording import Recording, play
from perjoule.sidecar.metering.calibration import BLOCK_NS, Calibration, Key
from perjoule.sidecar.metering.terms import NOTHING, Terms


class HeldOut(Calibration):
    """A calibration that learns no more, and only notes how its predictions compare, in blocks of a second."""

    def __init__(self, learned: Calibration) -> None:
        self._blocks: list[tuple[float, float]] = []  # predicted, measured
        super().__init__(learned.key)
        self.versions = list(learned.versions)
        self._covariance = learned.relative_covariance  # as it was when it learned last
        self._block, self._block_j, self._block_ns = NOTHING, 0.0, 0

    @property
    def gain(self) -> float | None:
        """What was measured over what was predicted, in all: another board's gain, or a prior's unit, which no share sees."""
        predicted = sum(predicted for predicted, _ in self._blocks)
        return sum(measured for _, measured in self._blocks) / predicted if predicted else None

    @property
    def window_error(self) -> float | None:
        """Mean |predicted - measured| over measured, the gain taken out, of windows that it never learned from."""
        gain = self.gain
        if not gain:
            return None
        return sum(abs(gain * predicted - measured) for predicted, measured in self._blocks) / sum(m for _, m in self._blocks)

    def learn(self, amounts: Terms, active_j: float, t_ns: int, span_ns: int) -> None:
        """Only compare."""
        self._block, self._block_j, self._block_ns = self._block.plus(amounts), self._block_j + active_j, self._block_ns + span_ns
        if self._block_ns >= BLOCK_NS:
            self._blocks.append((self.coefficients.dot(self._block), self._block_j))
            self._block, self._block_j, self._block_ns = NOTHING, 0.0, 0


@dataclass(slots=True)
class Fitted:
    """A calibration and the recordings that it has learned from."""

    calibration: Calibration
    names: list[str] = field(default_factory=list)
    until_ns: int = 0  # of the time that all of them took together

    def __str__(self) -> str:
        return f"{self.calibration.state} after {', '.join(self.names)}"


def machine(recording: Recording) -> Key:
    """What a calibration holds for, as far as the recording tells."""
    return Key(recording.gpu, model=recording.model or None, engine=recording.engine or None)


def learn_from(traffic: Sequence[Recording]) -> dict[tuple[Key, str], Fitted]:
    """One calibration for each machine and board, taught by its traffic in the order given, as if one followed on the other."""
    fitted: dict[tuple[Key, str], Fitted] = {}
    for recording in (each for each in traffic if each.requests):
        key = machine(recording)
        one = fitted.setdefault((key, recording.board), Fitted(Calibration(key)))
        play(recording, "step-model", one.calibration, one.until_ns)
        one.names.append(recording.name)
        one.until_ns += recording.span_ns
    return fitted
