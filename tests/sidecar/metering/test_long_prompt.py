"""One step that computes a long prompt, of which the engine tells when it is over: perhaps a moment after the answer has come."""

import pytest

from perjoule.sidecar.ports import Step
from tests.sidecar.metering.test_meter import MS, Bench

HIDDEN = {"streamed": False}
STEP_MS = 600


def told(bench, *firsts_ms, prefill=0, took_ms=10):
    """The engine says that a step has ended now."""
    prompts = prefill if firsts_ms else 0
    bench.meter.step(Step(bench.now_ms * MS, 1, 0, took_ms * MS, prefill, prompts, 0, tuple(first * MS for first in firsts_ms)))


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("neighbours", [0, 2])
def test_one_long_step_is_its_prompts(neighbours, is_late):
    """Whichever comes first, the answer of one token or the news of the only step that it took, nearly all that was drawn in that step is
    the prompt's: it was not done with the step before, to decode ever since. Of neighbours it is thought until the news comes that they go
    on as before, so they may be charged a quarter."""
    bench = Bench().run_to(1000)
    names = [f"decodes {number}" for number in range(neighbours)]
    begun_ms = bench.now_ms
    for name in ("before", *names):
        bench.begin(name, input_tokens=40, **HIDDEN)
    told(bench.run_to(begun_ms + 10), *[begun_ms] * (1 + neighbours), prefill=40 * (1 + neighbours))
    bench.end("before", output_tokens=1)
    bench.run_to(bench.now_ms + 5)
    began_ms = bench.now_ms
    bench.begin("long", input_tokens=2000, **HIDDEN)
    bench.run_to(began_ms + STEP_MS)
    if is_late:
        bench.end("long", output_tokens=1)
    told(bench, began_ms, prefill=2000, took_ms=STEP_MS)
    if not is_late:
        bench.end("long", output_tokens=1)
    for name in names:
        bench.end(name, output_tokens=2)
    bench.run_to(bench.now_ms + 1500)
    long, *others = (bench.settled[name][1].charge for name in ("long", *names))
    assert 0.4 * STEP_MS * (0.75 if neighbours and is_late else 1) - 41 < long.energy_uj / 1e6 < 0.4 * STEP_MS + 41
    assert long.prefill_uj > 0.9 * long.energy_uj
    assert all(other.energy_uj < long.energy_uj / 4 for other in others)
    assert bench.meter.balance.conserved
