"""What an estimate is made of, by what was asked for: a calibration, results, a regression over them, or datasheets alone."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from perjoule.bench.board.store import Result, read
from perjoule.bench.estimates import measured, points, regression, rows
from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits
from perjoule.bench.estimates.boards import Boards, boards_of
from perjoule.bench.estimates.bounds import limits_of
from perjoule.bench.estimates.calibrated import calibration_of
from perjoule.bench.estimates.costs import Costs, by_calibration, by_physics
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.estimate import Estimate, estimated
from perjoule.bench.estimates.shapes import ModelShape, described, shape_of

SHAPE_FLAGS = ("parameters", "active_parameters", "weight_bytes", "kv_bytes", "layers", "attention_width")


class Made(NamedTuple):
    """An estimate and what it was made of; `costs` is None where it is not of amounts."""

    estimate: Estimate
    basis: dict[str, Any]
    costs: Costs | None
    limits: Limits
    shape: ModelShape | None
    boards: Boards | None
    warnings: Sequence[str] = ()

    @property
    def told(self) -> dict[str, Any]:
        """For JSON."""
        boards = self.boards and {"name": self.boards.name, "count": self.boards.count, "flop_s": self.boards.flop_s,
                                  "bytes_s": self.boards.bytes_s, "tdp_w": self.boards.tdp_w, "idle_w": self.boards.idle_w,
                                  "source": self.boards.source}
        return {**self.basis, "gpu": boards, "model": described(self.shape) if self.shape else None}


def made_of(args: Namespace, asked: Sequence[Asked]) -> Made:
    """The estimate of these requests that the flags mean. Raises EstimateError, and OSError, for what is missing."""
    if args.calibration:
        return _of_calibration(args, asked)
    return _of_results(args, asked) if args.results else _of_physics(args, asked)


def _limits(args: Namespace) -> Limits:
    return Limits(args.max_num_seqs, args.max_num_batched_tokens, concurrency=args.concurrency)


def _shape(args: Namespace, model: str, precision: str | None = None) -> ModelShape:
    return shape_of(args.model_shape or model, precision, **{name: getattr(args, name) for name in SHAPE_FLAGS})


def _boards(args: Namespace, gpu: str, count: int, tdp_w: float | None = None) -> Boards:
    return boards_of(args.gpu or gpu, args.gpus or count, tdp_w=args.tdp_w or tdp_w, idle_w=args.idle_w)


def _of_physics(args: Namespace, asked: Sequence[Asked]) -> Made:
    if not args.gpu or not (args.model_shape or args.parameters):
        raise EstimateError("got nothing to estimate from, expected --calibration FILE|ID, --results DIR…, or --model-shape NAME (or "
                            "--parameters N) and --gpu NAME")
    shape, boards = _shape(args, ""), _boards(args, args.gpu, 1)
    costs, limits = by_physics(shape, boards), limits_of(shape, boards, _limits(args))
    return Made(estimated(asked, costs, limits, shape), _costs(costs), costs, limits, shape, boards)


def _of_calibration(args: Namespace, asked: Sequence[Asked]) -> Made:
    calibration, version = calibration_of(args.calibration, args.calibrations)
    key, warnings = calibration.key, []
    if " + " in key.gpu and not args.gpu:
        raise EstimateError(f"got a calibration of {key.gpu}, expected GPUs of one kind, or --gpu for which of them to reckon with")
    boards = _boards(args, key.gpu, len(key.group) or 1, key.power_limit_w)
    if " + " not in key.gpu and key.gpu and boards_of(key.gpu).name != boards.name:
        raise EstimateError(f"--gpu: got {args.gpu}, expected {key.gpu}: a calibration holds for its own GPUs")
    if key.group and boards.count != len(key.group):
        raise EstimateError(f"--gpus: got {args.gpus}, expected {len(key.group)}: a calibration holds for its own GPUs")
    try:
        shape: ModelShape | None = _shape(args, key.model or "", key.precision)
    except EstimateError:
        shape = None
        warnings.append(f"the shape of {key.model or 'its model'} is not known: durations follow from the joules, and memory is endless")
    costs, limits = by_calibration(calibration, version, boards, shape), limits_of(shape, boards, _limits(args))
    if version is not calibration.versions[-1]:
        warnings.append(f"{version.id} is no longer in use; its error is taken to be that of {calibration.id}")
    basis = {"calibration_id": version.id, "model_id": key.model, "gpu_model": key.gpu, **_costs(costs)}
    return Made(estimated(asked, costs, limits, shape), basis, costs, limits, shape, boards, warnings)


def _of_results(args: Namespace, asked: Sequence[Asked]) -> Made:
    store = read(args.results)
    warnings = [str(problem) for problem in store.problems]
    if not store.results:
        raise EstimateError(f"--results: got no result in {', '.join(map(str, args.results))}, expected result.json of perjoule replay")
    if args.regression:
        return _of_regression(args, asked, store.results, warnings)
    results, notes = points.chosen(store.results, args.model, args.gpu)
    curve = points.merged([point for result in results if (point := points.point_of(result))])
    if not curve:
        raise EstimateError(f"--results: got {len(results)} results without energy, tokens or batch, expected at least one with them")
    setting, shape, boards = results[0]["setting"], None, None
    try:
        boards = boards_of(str(setting.get("gpu_model") or ""), int(setting.get("num_gpus") or 1),
                           tdp_w=args.tdp_w or setting.get("power_limit_w"), idle_w=args.idle_w)
        shape = _shape(args, str(setting.get("model_id") or ""), setting.get("weight_precision"))
    except EstimateError as error:
        notes.append(str(error))
    idle_w = args.idle_w if args.idle_w is not None else boards.idle_w * boards.count if boards else 0.0
    found = measured.by_results(asked, curve, args.concurrency, idle_w)
    basis = {"runs": [result["run_id"] for result in results], "model_id": setting.get("model_id"), "gpu_model": setting.get("gpu_model"),
             "points": measured.described(curve)}
    return Made(found, basis, None, _limits(args), shape, boards, [*warnings, *notes])


def _of_regression(args: Namespace, asked: Sequence[Asked], results: Sequence[Result], warnings: Sequence[str]) -> Made:
    if not args.gpu or not (args.model_shape or args.parameters):
        raise EstimateError("--regression: got no model and GPU to tell, expected --model-shape NAME (or --parameters N) and --gpu NAME")
    taught, problems = rows.rows_of(results)
    fitted = regression.fit(taught)
    shape, boards = _shape(args, ""), _boards(args, args.gpu, 1)
    costs, limits = by_physics(shape, boards), limits_of(shape, boards, _limits(args))
    physics = estimated(asked, costs, limits, shape)
    found = regression.by_regression(asked, fitted, physics, shape, boards)
    weights = {name: weight / scale for name, weight, scale in zip(rows.FEATURES, fitted.weights, fitted.scales, strict=True)}
    basis = {"models": list(fitted.models), "rows": len(taught), "beside_physics": fitted.beside_physics, "exponents": weights,
             "left_one_model_out_median_error": fitted.median_error, "left_one_model_out_sd": fitted.relative_sd,
             "left_one_model_out_sd_of_the_other": fitted.rival, "physics_j": physics.energy_j}
    return Made(found, basis, None, limits, shape, boards, [*warnings, *problems])


def _costs(costs: Costs) -> dict[str, Any]:
    return {"joules": asdict(costs.joules), "seconds": asdict(costs.seconds), "idle_w": costs.idle_w}
