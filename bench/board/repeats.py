"""Which of the repeats of one configuration stands for it: the median one, since the best of many is the luckiest."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median_high
from typing import Any

from perjoule.bench.board.rows import metric, number
from perjoule.bench.measures.comparable import configuration

METRIC = "energy_per_output_token"


def standing(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each result, `repeats`, how many valid ones there are of its configuration, and whether it `stands` for them: who has the median
    energy per output token, of an even number the greater of the two in the middle. One that is not valid never does, and one that
    does not know its workload is nobody's repeat."""
    keys = [configuration(result) or str(at) for at, result in enumerate(results)]
    groups: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for at, (key, result) in enumerate(zip(keys, results, strict=True)):
        energy = number(metric(result, METRIC).get("value"))
        if result["valid"] and energy is not None:
            groups[key].append((energy, at))
    medians = {median_high(group)[1] for group in groups.values()}
    return [{"repeats": len(groups.get(key, ())), "stands": at in medians} for at, key in enumerate(keys)]
