"""What traffic has taught so far: bytes a token, tokens a frame, how long a step takes whose frames nobody sees.

All of it is used only where the engine has not (yet) said better, and everything learned is forgotten slowly, so that another
model behind the same port is learned within some dozens of requests.
"""

from perjoule.sidecar.units import NS_PER_S

KEEP = 0.95  # of what was learned before, at each new observation
KEEP_PEAK = 0.998
PRIOR_BYTES_PER_TOKEN = 4.0  # English under byte-pair encodings
PRIOR_DECODE_PER_S = 50.0  # tokens of one sequence


class Ratio:
    """A ratio of sums with forgetting: large observations count for more, as they should."""

    __slots__ = ("_above", "_below")

    def __init__(self, prior: float, weight: float) -> None:
        self._above, self._below = prior * weight, weight

    def learn(self, above: float, below: float) -> None:
        if above > 0 and below > 0:
            self._above = self._above * KEEP + above
            self._below = self._below * KEEP + below

    @property
    def value(self) -> float:
        return self._above / self._below


class Peak:
    """The highest of late: for a rate of which every observation is too low, since others were served in the same time. The first
    observation replaces the prior, high or low."""

    __slots__ = ("_is_prior", "value")

    def __init__(self, prior: float) -> None:
        self.value, self._is_prior = prior, True

    def learn(self, above: float, below: float) -> None:
        if above > 0 and below > 0:
            rate = above / below
            self.value = rate if self._is_prior else max(self.value * KEEP_PEAK, rate)
            self._is_prior = False

    def is_at_least(self, above: float, below: float) -> None:
        """It is known to be no lower, and that says nothing of how much higher it is."""
        if below > 0:
            self.value = max(self.value, above / below)


class Pace:
    """The rates of one engine."""

    def __init__(self) -> None:
        self.bytes_per_token = Ratio(PRIOR_BYTES_PER_TOKEN, 25.0)
        self.tokens_per_frame = Ratio(1.0, 10.0)
        self.decode_per_s = Ratio(PRIOR_DECODE_PER_S, 0.1)

    @property
    def step_ns(self) -> float:
        """How long a step takes: the time in which each sequence gets a token."""
        return NS_PER_S / self.decode_per_s.value

    def learn_decode(self, tokens: float, span_ns: int) -> None:
        """One sequence got so many tokens in that time."""
        self.decode_per_s.learn(tokens, span_ns / NS_PER_S)
