"""How far each rule of sharing joules is from the Shapley value where that is known: games of simulated requests, of every physics.

The reference is the Shapley value of whole runs: the engine with each set of the requests alone. The meter's methods are the real
meter's, fed with the simulated tokens and counter; step-model's calibration was found online on other traffic of the same physics.
`per step` knows what no meter does: who was in each step, and what it cost by its own physics, shared equally where it was shared.

    python bench/rules.py [--draws N] [--json]
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from random import Random
from statistics import fmean
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

from perjoule.bench.physics import Part, Physics
from perjoule.bench.sampled_shapley import EXACT_UP_TO, Worth, value
from perjoule.bench.shapley import normalized_l1
from perjoule.bench.simulated_run import Play, Request, play, worth
from perjoule.bench.simulator import PHYSICS
from perjoule.bench.simulator import Sequence as Answering
from perjoule.sidecar.metering.calibration import Calibration, Key
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

MIXES = {  # prompt tokens from, to; output tokens from, to; lengths are log-uniform
    "chat": (32, 256, 64, 512), "mixed": (32, 4096, 16, 360), "RAG": (2048, 16384, 16, 128), "very mixed": (32, 16384, 16, 512),
}
SHORT_NS = 10 * NS_PER_MS  # windows of a tenth of the length, to see what the length costs
OTHER_S, OTHER_PER_S = 240, 4.0  # of the traffic that is calibrated on, and requests a second in it
Z_90 = 1.645  # standard deviations either side of 90 % of a normal distribution
SAMPLED_WITHIN, MOST_PAIRS = 0.02, 40  # normalized L1, or so many pairs of permutations: of 32 players each is 64 runs


@dataclass(frozen=True, slots=True)
class Game:
    """Requests of a mix that arrive together or evenly at random over `stagger_s`."""

    physics: str
    mix: str
    players: int = 7
    stagger_s: float = 0.0

    def draw(self, random: Random) -> list[Request]:
        """One set of requests."""
        arrivals = sorted(round(random.uniform(0, self.stagger_s) * NS_PER_S) for _ in range(self.players))
        return [Request(at_ns, *lengths(MIXES[self.mix], random)) for at_ns in arrivals]


GAMES = (
    *(Game("roofline", mix) for mix in MIXES),
    *(Game(physics, mix) for physics in ("linear", "recorded", "experts") for mix in ("mixed", "very mixed")),
    *(Game(physics, "mixed", players, 2.0) for physics in ("linear", "roofline") for players in (8, 16, 32)),
    *(Game(physics, "mixed", 8, 2.0) for physics in ("recorded", "experts")),
)


def lengths(mix: tuple[int, int, int, int], random: Random) -> tuple[int, int]:
    """Prompt and output tokens of one request."""
    a, b, c, d = (math.log(tokens) for tokens in mix)
    return round(math.exp(random.uniform(a, b))), round(math.exp(random.uniform(c, d)))


def calibrated(physics: Physics, random: Random) -> Calibration:
    """What the meter learns by itself from Poisson traffic of all mixes."""
    calibration, at_s, requests = Calibration(Key(gpu="H200")), 0.0, []
    while at_s < OTHER_S:
        requests.append(Request(round(at_s * NS_PER_S), *lengths(random.choice(list(MIXES.values())), random)))
        at_s += random.expovariate(OTHER_PER_S)
    play(requests, physics, partial(Meter, method="step-model", calibration=calibration))
    return calibration


def shares(requests: Sequence[Request], physics: Physics, calibration: Calibration) -> tuple[dict[str, list[float]], list[float]]:
    """What each rule would have each request pay, of which only the proportions mean something, and how uncertain step-model says
    its microjoules are."""
    def metered(method: str, **engine: Any) -> Play:
        meter = partial(Meter, method=method, calibration=deepcopy(calibration))  # what it learns here is not for the next
        return play(requests, physics, meter, **engine)

    whole, modelled = metered("token-share"), metered("step-model")
    parts = {
        "total-token": [float(request.input_tokens + request.output_tokens) for request in requests],
        "output-token": [float(request.output_tokens) for request in requests],
        "equal 1/n": equal_time(spans_of(whole.sequences)),
        "token-share": charged(whole),
        "step-model": charged(modelled),
        "step-model, 10 ms": charged(metered("step-model", period_ns=SHORT_NS)),
        "per step": [float(sequence.prefill_uj + sequence.decode_uj) for sequence in whole.sequences],
    }
    return parts, [float(record.charge.uncertainty_uj or 0) for record in modelled.records]


def charged(play: Play) -> list[float]:
    """Microjoules by the records."""
    return [float(record.charge.energy_uj or 0) for record in play.records]


Span = tuple[int, int]


def spans_of(sequences: Sequence[Answering]) -> list[Span]:
    """From arrival to the last token."""
    return [(sequence.queued_ns, sequence.last_token_ns or 0) for sequence in sequences]


def equal_time(spans: Sequence[Span]) -> list[float]:
    """At every moment an equal part for all that were there: the Shapley value of `covered`."""
    edges = sorted({edge for span in spans for edge in span})
    parts = [0.0] * len(spans)
    for t0_ns, t1_ns in pairwise(edges):
        here = [i for i, (begin_ns, end_ns) in enumerate(spans) if begin_ns <= t0_ns and end_ns >= t1_ns]
        for i in here:
            parts[i] += (t1_ns - t0_ns) / len(here)
    return parts


def covered(spans: Sequence[Span]) -> int:
    """Nanoseconds during which somebody was there."""
    total_ns = until_ns = 0
    for begin_ns, end_ns in sorted(spans):
        total_ns += max(0, end_ns - max(begin_ns, until_ns))
        until_ns = max(until_ns, end_ns)
    return total_ns


def busy_time(requests: Sequence[Request], physics: Physics) -> tuple[Worth, list[float]]:
    """A game like the real one, with its value: a decode step's power for as long as somebody is there, whoever it is."""
    spans, step = spans_of(play(requests, physics).sequences), physics.step([Part(0, 1000)])
    watts = (step.shared_uj + sum(step.own_uj)) / step.ns
    return (lambda members: watts * covered([spans[i] for i in members])), [watts * part for part in equal_time(spans)]


def assess(game: Game, calibration: Calibration, draws: int) -> dict[str, Any]:
    """The mean distance of each rule over some draws of a game."""
    physics, l1, errors, within = PHYSICS[game.physics], list[dict[str, float]](), [], list[bool]()
    for draw in range(draws):
        random = Random(f"{game} {draw}")
        requests = game.draw(random)

        def drawn(coalition: tuple[int, ...], requests: Sequence[Request] = requests) -> float:
            return worth([requests[i] for i in coalition], physics)

        fair = value(game.players, drawn, random, error=SAMPLED_WITHIN, most_pairs=MOST_PAIRS, alike=busy_time(requests, physics))
        errors.append(fair.l1_error)
        parts, sds = shares(requests, physics, calibration)
        l1.append({rule: normalized_l1(each, fair.values) for rule, each in parts.items()})
        scale = sum(parts["step-model"]) / sum(fair.values)
        within += [abs(uj - scale * truth) <= Z_90 * sd for uj, truth, sd in zip(parts["step-model"], fair.values, sds, strict=True)]
    return {"physics": game.physics, "mix": game.mix, "players": game.players, "stagger_s": game.stagger_s, "draws": draws,
            "truth_error": fmean(errors), "coverage_90": fmean(within), "l1": {rule: fmean(each[rule] for each in l1) for rule in l1[0]}}


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """A row for each game."""
    out = Table(title="Distance from the Shapley value (normalized L1, 0 is exact, mean over draws)", box=MARKDOWN)
    for column in ("physics", "mix", "players", "over, s", "draws", "truth known to", *rows[0]["l1"], "step-model covers"):
        out.add_column(column, justify="left" if column in ("physics", "mix") else "right", no_wrap=True)
    for row in rows:
        out.add_row(row["physics"], row["mix"], str(row["players"]), f"{row['stagger_s']:g}", str(row["draws"]),
                    f"{row['truth_error']:.3f}" if row["truth_error"] else "exact", *(f"{distance:.3f}" for distance in row["l1"].values()),
                    f"{100 * row['coverage_90']:.0f} %")
    return out


def assessed(games: Sequence[Game], draws: int) -> Iterator[dict[str, Any]]:
    """Every game; those whose value must be sampled take long and get a fifth of the draws."""
    physics = sorted({game.physics for game in games})
    calibrations = {name: calibrated(PHYSICS[name], Random(name))
                    for name in track(physics, "calibrating", console=Console(stderr=True), transient=True)}
    for game in track(games, "playing", console=Console(stderr=True), transient=True):
        calibration = calibrations[game.physics]
        yield assess(game, calibration, draws if game.players <= EXACT_UP_TO else -(-draws // 5)) | {"calibration": calibration.id}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10, help="of each game")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    asked = parser.parse_args()
    if asked.draws < 1:
        parser.error(f"--draws: got {asked.draws}, expected at least 1")
    rows = list(assessed(GAMES, asked.draws))
    if asked.json:
        print(json.dumps({"games": rows}))
    else:
        Console(width=None if sys.stdout.isatty() else 200).print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
