"""The requests of a run one by one: distributions over them, histograms, and a column for each thing that is said of them."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from perjoule.bench.measures.distribution import distribution, histogram, weighted
from perjoule.bench.measures.formulas import FORMULAS, formula_id
from perjoule.bench.measures.measured import Measured
from perjoule.sidecar.units import NS_PER_S, UJ_PER_J

DELAYS = ("ttfb", "ttft", "tpot", "ntpot", "e2e", "ttft_intended", "e2e_intended")
OF_RECORDS = "record_energy_per_output_token"  # the formula of a distribution over requests; the metric of that name is a window's


def distributions(run: Measured) -> dict[str, Any]:
    """Of completed requests; the send lag of all."""
    completed = run.completed
    found = {key: (key, distribution(getattr(request, key) for request in completed)) for key in DELAYS}
    found |= {"icl": ("icl", weighted(run.icl)), "send_lag": ("send_lag", distribution(request.send_lag for request in run.requests)),
              "energy_per_response": ("energy_per_response", distribution(request.energy_j for request in completed)),
              "energy_per_output_token": (OF_RECORDS, distribution(
                  request.energy_j / n for request in completed if request.energy_j is not None and (n := request.sample.output_tokens))),
              "input_tokens": ("input_tokens", distribution(request.sample.input_tokens for request in completed)),
              "output_tokens": ("output_tokens", distribution(request.sample.output_tokens for request in completed))}
    return {key: {"unit": FORMULAS[name].unit, "formula": formula_id(name), **each} for key, (name, each) in found.items() if each}


def histograms(run: Measured) -> dict[str, Any]:
    """Of completed requests, where there is something to count."""
    found = {"energy_per_response_j": _counted(r.energy_j for r in run.completed),
             "output_tokens": _counted(r.sample.output_tokens for r in run.completed),
             "ttft_ms": _counted(r.ttft for r in run.completed), "icl_ms": run.icl}
    return {key: drawn for key, values in found.items() if (drawn := histogram(values))}


def columns(run: Measured) -> dict[str, list[Any]]:
    """Every request in the order of the schedule, a list for each thing; None where it is not known."""
    def joules(name: str) -> list[float | None]:
        return [None if (uj := getattr(request, name)) is None else uj / UJ_PER_J for request in run.requests]

    samples = run.run.samples
    return {"index": [s.index for s in samples], "intended_s": [s.intended_ns / NS_PER_S for s in samples],
            "sent_s": [s.sent_ns / NS_PER_S for s in samples], "ttft_ms": [r.ttft for r in run.requests],
            "tpot_ms": [r.tpot for r in run.requests], "e2e_ms": [r.e2e for r in run.requests],
            "input_tokens": [s.input_tokens for s in samples], "output_tokens": [s.output_tokens for s in samples],
            "energy_j": joules("energy_uj"), "prefill_j": joules("prefill_uj"), "decode_j": joules("decode_uj"),
            "uncertainty_j": joules("uncertainty_uj"), "outcome": [s.outcome for s in samples]}


def _counted(values: Iterable[float | None]) -> dict[float, float]:
    return {value: float(count) for value, count in Counter(value for value in values if value is not None).items()}
