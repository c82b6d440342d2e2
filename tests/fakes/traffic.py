"""Windows of made-up traffic whose energy is exactly what the coefficients say, but for noise that the test asks for."""

from collections.abc import Iterator
from random import Random

from perjoule.sidecar.metering.terms import Terms

SPAN_NS = 100_000_000
STEP_S, PROMPT_TOKEN_S = 0.006, 33e-6
TRUTH = Terms(0.0145, 1.7, 0.018, 1.6e-5)  # joules; about an 8B model on an H200


def poisson(random: Random, windows: int, per_s: float = 3.0, t_ns: int = 0) -> Iterator[tuple[Terms, int]]:
    """Open traffic: requests come by chance, with prompts and answers of any length; amounts of each window, and its end."""
    running: list[list[float]] = []  # output tokens left, context
    backlog = 0.0
    for _ in range(windows):
        t_ns += SPAN_NS
        while random.random() < per_s / 10 / (1 + per_s / 10):  # geometric: bursts happen
            prompt = random.choice((50, 300, 1000, 6000)) * random.uniform(0.5, 1.5)
            backlog += prompt
            running.append([random.uniform(20, 400), prompt])
        if not running:
            continue
        prefill = min(backlog, 0.1 / PROMPT_TOKEN_S)
        backlog -= prefill
        steps = max(1.0, (0.1 - prefill * PROMPT_TOKEN_S) / STEP_S)
        decode = context = 0.0
        for request in running:
            made = min(steps, request[0])
            decode += made
            context += made * request[1]
            request[0] -= made
            request[1] += made
        running = [request for request in running if request[0] > 0]
        yield Terms(prefill, steps, decode, context), t_ns


def saturated(random: Random, windows: int, batch: int = 32, jitter: float = 0.02) -> Iterator[tuple[Terms, int]]:
    """A full batch of requests that are all alike: every amount in proportion to every other, but for a little chance."""
    for window in range(1, windows + 1):
        steps = 14.0 * random.gauss(1.0, jitter)
        yield Terms(steps * batch * 2.0, steps, steps * batch, steps * batch * 400), window * SPAN_NS


def drawn(random: Random, amounts: Terms, truth: Terms = TRUTH, noise: float = 0.03) -> float:
    """The energy of a window, off by `noise` of itself."""
    return max(0.0, amounts.dot(truth) * random.gauss(1.0, noise))
