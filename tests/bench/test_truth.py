"""The measured truth of a game, and how surely it is known."""

import gzip
import json
import random
from itertools import product
from statistics import fmean

import pytest

from perjoule.bench.recording import Recording
from perjoule.bench.shapley import normalized_l1, shapley
from perjoule.bench.truth import Game, repeat_sd

MS = 1_000_000
IDLE_MW = 120_000


def game(folder, worths_mj, *, per_class=1):
    """A game of classes a and b whose runs draw these millijoules above idle; of each class so many requests are sent a player."""
    t_ns, total, counter, requests, marks = 10**12, 0.0, [(10**12 - 1000 * MS, 10**12 - 1000 * MS, 0)], [], []
    for counts, worth_mj in worths_mj:
        last = counter[-1][0]
        t_ns += 600 * MS
        names = [name for name, count in zip("ab", counts, strict=True) for _ in range(count)]
        for tick in range(last + 100 * MS, t_ns + 1400 * MS, 100 * MS):
            total += IDLE_MW * 0.1 + (worth_mj / 10 if t_ns < tick <= t_ns + 1000 * MS else 0)
            counter.append((tick, tick, total))
        requests += [{"cls": name, "in": 1, "t0": t_ns, "t": [t_ns + 1], "n": [1], "end": t_ns + 1000 * MS, "coal": len(marks)}
                     for name in names for _ in range(per_class)]
        marks.append((names, t_ns, t_ns + 1000 * MS, t_ns + 1300 * MS))
        t_ns += 1300 * MS
    path = folder / "game.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"counter": counter, "requests": requests, "marks": marks}).encode()))
    return Game(Recording(path))


def test_worths_are_above_idle(tmp_path):
    """What a coalition drew, without what the board draws anyway; what is shared is shared equally, own costs are paid."""
    found = game(tmp_path, [((1, 0), 60_000), ((0, 1), 80_000), ((1, 1), 90_000)])
    assert found.values[1, 0] == pytest.approx(60e6, rel=1e-6)
    assert found.fair_uj == pytest.approx({"a": 35e6, "b": 55e6}, rel=1e-6)
    assert found.players == "requests"


def test_truth_of_a_run_is_of_what_that_run_drew(tmp_path):
    """A repeat that drew 2 % more owes 2 % more, in the same shares."""
    found = game(tmp_path, [((1, 0), 60_000), ((0, 1), 80_000), ((1, 1), 89_000), ((1, 1), 91_000)])
    low, high = (found.truth_uj(run) for run in found.grand_runs)
    assert sum(low.values()) == pytest.approx(89e6, rel=1e-6)
    assert sum(high.values()) == pytest.approx(91e6, rel=1e-6)
    assert found.distance(found.grand_runs[0], low) == pytest.approx(0, abs=1e-9)


def test_whole_classes_as_players_are_another_game(tmp_path):
    """Two requests of each class in every coalition: distances are among classes, whoever of a class was charged."""
    found = game(tmp_path, [((1, 0), 60_000), ((0, 1), 80_000), ((1, 1), 90_000)], per_class=2)
    assert found.players == "classes"
    assert found.distance(2, dict(zip(found.members(2), (35, 0, 54, 1), strict=True))) == pytest.approx(0, abs=1e-6)


def test_repeats_tell_the_noise(tmp_path):
    """One standard deviation relative to the mean, pooled over coalitions; None where nothing was run twice."""
    one = game(tmp_path, [((1, 0), 99_000), ((0, 1), 80_000), ((1, 1), 90_000), ((1, 0), 101_000)])
    assert repeat_sd([one]) == pytest.approx(0.01 * 2 ** 0.5, rel=1e-3)
    assert repeat_sd([game(tmp_path, [((1, 0), 99_000), ((0, 1), 80_000), ((1, 1), 90_000)])]) is None
    assert repeat_sd([]) is None


def test_the_noise_floor_is_what_noise_alone_does(tmp_path):
    """The closed form agrees with measuring the same game over and over with noisy worths."""
    worths = {counts: 20_000.0 + 30_000 * counts[0] + 50_000 * counts[1] for counts in product(range(3), repeat=2) if any(counts)}
    found = game(tmp_path, list(worths.items()))
    draw, distances = random.Random(1), []
    fair = [found.fair_uj[name] for name in "aabb"]
    for _ in range(1500):
        noisy = shapley({counts: worth * draw.gauss(1, 0.01) for counts, worth in found.values.items()}, found.full)
        distances.append(normalized_l1([noisy[0]] * 2 + [noisy[1]] * 2, fair))
    assert found.noise_floor(0.01) == pytest.approx(fmean(distances), rel=0.08)
