"""What one recording says of every rule: how far its charges are from the measured truth, and how well they know it."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from statistics import fmean
from typing import Any

from perjoule.bench.accuracy_report import HELD, PRIOR, SERVED, Point
from perjoule.bench.baselines import BASELINES
from perjoule.bench.held_out import Fitted, HeldOut, machine
from perjoule.bench.recording import Recording, play
from perjoule.bench.truth import Game, repeat_sd
from perjoule.sidecar.metering.calibration import Calibration
from perjoule.sidecar.metering.weighing import METHODS
from perjoule.sidecar.units import joules

Charges = Mapping[int, tuple[int | None, int | None]]  # of requests by their place: active energy, and its standard error
CALIBRATED = "step-model"
RULES = (*METHODS, HELD, PRIOR)


class Judged:
    """One recording: `said` is what is found of it, `points` are its requests in the runs of the grand coalition."""

    def __init__(self, recording: Recording, game: Game | None, fitted: Fitted | None) -> None:
        self.recording, self.game = recording, game
        self.taught = fitted if game is not None else None
        self.said: dict[str, Any] = {"l1": {}, "noise_floor": None, "conserved": True, "joules_per_output_token": None,
                                     "players": game.players if game else None, "calibration": str(self.taught or "prior"),
                                     "coverage_90": {}, "all_coalitions": {}, "window_error": None, "window_errors": {}}
        self.points: list[Point] = []

    def by(self, rule: str) -> None:
        """Play it by one rule of the sidecar."""
        if rule == HELD and self.taught is None:
            return
        calibration = self._calibration(rule)
        begin_ns = self.taught.until_ns if self.taught else 0  # it goes on learning after the traffic
        meter, records = play(self.recording, CALIBRATED if rule in (HELD, PRIOR) else rule, calibration, begin_ns)
        charged_uj = sum(record.charge.energy_uj or 0 for record in records.values())
        tokens = sum(record.facts.output_tokens or 0 for record in records.values())
        self.said["conserved"] &= meter.balance.conserved and charged_uj == meter.balance.requests_uj
        if rule == METHODS[0]:
            self.said["joules_per_output_token"] = joules(charged_uj) / tokens if tokens else None
        if rule in (CALIBRATED, HELD, PRIOR):
            self.said["window_errors"][rule] = calibration.window_error
        if rule in (CALIBRATED, HELD):
            self.said["window_error"] = calibration.window_error
        if self.game is None:
            return
        distance = self._judge(rule, {i: (record.charge.active_uj, record.charge.uncertainty_uj) for i, record in records.items()})
        if rule in METHODS:
            self.said["l1"][rule] = distance
        else:
            self.said["step_model_held" if rule == HELD else "step_model_prior"] = distance

    def compare(self, others: Sequence[Game]) -> None:
        """Noise, the rules of others, and what a sidecar said of the same requests in production."""
        if self.game is None:
            return
        game, requests = self.game, self.recording.requests
        own_sd = repeat_sd([game])
        sd = own_sd if own_sd is not None else repeat_sd(others)
        self.said["noise_floor"] = None if sd is None else game.noise_floor(sd)
        self.said["repeat_sd"], self.said["repeats"] = sd, None if sd is None else "own" if own_sd is not None else "of other recordings"
        self.said["baselines"] = {rule: fmean(game.distance(run, shares(game, run)) for run in game.grand_runs)
                                  for rule, shares in BASELINES.items()}
        served = {i: self.recording.records[requests[i]["record"]] for i in range(len(requests)) if "record" in requests[i]}
        if served:
            charges = {i: (record["active_uj"], record["uncertainty_uj"]) for i, record in served.items()}
            self.said["as_served"] = self._judge(SERVED, charges)
            methods = {(record["method"], record.get("calibration_id") or "") for record in served.values()}
            self.said["as_served_by"] = sorted(" ".join(names).strip() for names in methods)

    def _calibration(self, rule: str) -> Calibration:
        """What a rule may know, a copy of its own: nothing but physics, or what traffic has taught."""
        taught = Calibration(machine(self.recording)) if self.taught is None or rule == PRIOR else deepcopy(self.taught.calibration)
        return HeldOut(taught) if rule in (HELD, PRIOR) else taught

    def _judge(self, rule: str, charges: Charges) -> float | None:
        """The distance of these charges from the truth, mean of the grand runs that have all of theirs; None if none has. Keeps their
        points. The same over every coalition of two or more, each of which is a game of its own with a measured truth, is less of an
        accident than the grand one alone, and is noted beside it."""
        assert self.game is not None
        distances, points = self._compared(rule, charges, self.game.grand_runs)
        self.said["coverage_90"][rule] = _covered(points)
        self.points += points
        every, every_points = self._compared(rule, charges, self.game.shared_runs)
        if every:
            self.said["all_coalitions"][rule] = {"games": len(every), "l1": fmean(every), "coverage_90": _covered(every_points)}
        return fmean(distances) if distances else None

    def _compared(self, rule: str, charges: Charges, runs: Sequence[int]) -> tuple[list[float], list[Point]]:
        """Of the runs whose requests all have a charge, the distance of each; and, where requests are the players, their points."""
        assert self.game is not None
        game, distances, points = self.game, [], []
        for run in runs:
            active_uj = {i: uj for i in game.members(run) if (uj := charges.get(i, (None, None))[0]) is not None}
            if len(active_uj) < len(game.members(run)):
                continue
            distances.append(game.distance(run, active_uj))
            for i, fair_uj in game.truth_uj(run).items() if game.by_request else ():
                points.append(Point(self.recording.name, rule, self.recording.requests[i]["cls"], fair_uj, active_uj[i], charges[i][1]))
        return distances, points


def _covered(points: Sequence[Point]) -> float | None:
    """How many of the truths are as near as their charges say; None if none says."""
    known = [point.covered for point in points if point.covered is not None]
    return fmean(known) if known else None
