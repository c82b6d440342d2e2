"""How much nearer to the truth shares come when the engine tells of its steps: the same simulated traffic, inferred and told.

Chats and long documents (8 requests a second, one in seven of 4,000 to 12,000 tokens, steps of 2,048) go through the simulated engine,
whose steps cost what linear physics say, so that each request's true joules are known. The meter is the one of production.

With recordings of a real GPU in which every coalition was run, the truth is measured: they are played as they were, as if nobody had
streamed, and as if the engine had told the steps beside that. What it would have told is made of the chunks that clients got.

    python -m perjoule.bench.told_steps [--draws N] [RECORDING...]
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from perjoule.bench.held_out import learn_from
from perjoule.bench.physics import H200
from perjoule.bench.recording import Recording
from perjoule.bench.recording import play as play_recording
from perjoule.bench.rules import calibrated
from perjoule.bench.shapley import normalized_l1
from perjoule.bench.simulated_run import Request, play
from perjoule.bench.truth import Game
from perjoule.sidecar.metering.calibration import Calibration
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import Step
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

REQUESTS, PER_S, DOCUMENTS = 240, 8.0, 1 / 7
TOGETHER_NS = 2 * NS_PER_MS
BYTES_PER_TOKEN, SPREAD = 4, 0.35  # of the prompts whose length nobody knows: the logarithm's standard deviation

TOLD: dict[str, Callable[[Step], Step] | None] = {
    "inferred": None,
    "told": lambda step: replace(step, prefill_tokens=None, took_ns=None),  # vLLM as it is
    "told, with prompt tokens of each step": lambda step: step,  # with --enable-logging-iteration-details
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent, and what of it is seen: how many do not stream, how many tokens come in a frame, whether lengths are known; and how
    many places the batch has."""

    name: str
    hidden: float = 0.0
    every: int = 1
    sized: bool = True
    places: int = 128

    def draw(self, seed: int) -> list[Request]:
        """Some requests."""
        random, at_s, requests = Random(seed), 0.0, []
        for _ in range(REQUESTS):
            at_s += random.expovariate(PER_S)
            document = random.random() < DOCUMENTS
            requests.append(Request(round(at_s * NS_PER_S), random.randint(4000, 12_000) if document else random.randint(50, 400),
                                    random.randint(50, 150 if document else 300), random.random() >= self.hidden))
        return requests


TRAFFIC = (
    Traffic("all stream"), Traffic("four in ten do not", hidden=0.4), Traffic("none does", hidden=1.0),
    Traffic("all stream, four tokens a frame", every=4), Traffic("all stream, lengths guessed by bytes", sized=False),
    Traffic("none does, lengths guessed by bytes", hidden=1.0, sized=False),
    Traffic("all stream, and wait for one of ten places", places=10), Traffic("none does, and they wait", hidden=1.0, places=10),
)


class Seeing(Meter):
    """A meter that sees of the traffic what is to be seen of it."""

    def __init__(self, *args: Any, traffic: Traffic, seed: int, **more: Any) -> None:
        super().__init__(*args, **more)
        self._traffic, self._random, self._frames = traffic, Random(seed), dict[str, int]()

    def begin(self, record_id: str, t_ns: int, *, input_tokens: int | None = None, **more: Any) -> None:
        if not self._traffic.sized and input_tokens is not None:
            more["input_bytes"] = round(BYTES_PER_TOKEN * input_tokens * self._random.lognormvariate(0.0, SPREAD))
            input_tokens = None
        super().begin(record_id, t_ns, input_tokens=input_tokens, **more)

    def tokens(self, record_id: str, t_ns: int, count: int) -> None:
        before = self._frames.get(record_id, 0)
        self._frames[record_id] = before + count
        if before % self._traffic.every == 0:
            super().tokens(record_id, t_ns, count)


def distances(traffic: Traffic, seeds: Sequence[int], calibration: Calibration) -> dict[str, float]:
    """The mean normalized L1 between shares and the truth, for each way of knowing the steps."""
    found: dict[str, list[float]] = {how: [] for how in TOLD}
    for seed in seeds:
        requests = traffic.draw(seed)
        for how, told in TOLD.items():
            meter = partial(Seeing, traffic=traffic, seed=seed, calibration=deepcopy(calibration))
            played = play(requests, H200, meter, told=told, max_num_seqs=traffic.places)
            found[how].append(normalized_l1([float(record.charge.energy_uj or 0) for record in played.records],
                                            [float(each.prefill_uj + each.decode_uj) for each in played.sequences]))
    return {how: fmean(each) for how, each in found.items()}


def steps_of(recording: Recording) -> list[Step]:
    """The engine's steps, from the chunks that clients got: those that came together came from one."""
    chunks = sorted((t_ns, place, nth) for place, request in enumerate(recording.requests) for nth, t_ns in enumerate(request["t"]))
    steps: list[Step] = []
    served: set[int] = set()
    for t_ns, place, nth in chunks:
        if not steps or t_ns - steps[-1].t_ns > TOGETHER_NS or place in served:
            steps.append(Step(t_ns))
            served = set()
        served.add(place)
        if nth == 0:
            steps[-1] = replace(steps[-1], first_arrivals_ns=(*steps[-1].first_arrivals_ns, recording.requests[place]["t0"]))
    return steps


def recorded(recordings: Sequence[Recording]) -> dict[str, list[float]]:
    """Of each recording with a truth, the mean distance of every coalition of two or more: as it was, hidden, hidden and told."""
    fitted = list(learn_from([recording for recording in recordings if not recording.marks]).values())
    found: dict[str, list[float]] = {}
    for recording in (each for each in recordings if each.marks):
        game, told = Game(recording), steps_of(recording)
        if not game.shared_runs:
            continue
        for hidden, steps in ((False, ()), (True, ()), (True, told)):
            calibration, begin_ns = (deepcopy(fitted[0].calibration), fitted[0].until_ns) if fitted else (None, 0)
            _, records = play_recording(recording, "step-model", calibration, begin_ns, hidden=hidden, told=steps)
            charged = {place: float(record.charge.active_uj or 0) for place, record in records.items()}
            found.setdefault(recording.name, []).append(fmean(game.distance(run, charged) for run in game.shared_runs))
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5, help="of each traffic")
    parser.add_argument("recordings", nargs="*", type=Path, metavar="RECORDING", help="those without coalitions are what is learned from")
    asked = parser.parse_args()
    if asked.draws < 1:
        parser.error(f"--draws: got {asked.draws}, expected at least 1")
    calibration = calibrated(H200, Random("told"))
    table = Table(title="Distance from the truth (normalized L1, 0 is exact, mean over draws)", box=MARKDOWN)
    for column in ("of the requests", *TOLD):
        table.add_column(column, no_wrap=True)
    for traffic in TRAFFIC:
        row = distances(traffic, range(asked.draws), calibration)
        table.add_row(traffic.name, *(f"{distance:.3f}" for distance in row.values()))
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    if asked.recordings:
        measured = Table(title="The same on recordings of a real GPU, mean over every coalition of two or more", box=MARKDOWN)
        for column in ("recording", "all stream", "none does", "none does, told"):
            measured.add_column(column, no_wrap=True)
        for name, distance_of in recorded([Recording(path) for path in asked.recordings]).items():
            measured.add_row(name, *(f"{distance:.3f}" for distance in distance_of))
        console.print(measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
