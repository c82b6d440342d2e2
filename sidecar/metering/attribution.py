"""A window's microjoules divided exactly: the parts are integers and sum to the whole, whatever the weights."""

from collections.abc import Sequence


def apportion(total_uj: int, weights: Sequence[int]) -> list[int]:
    """`total_uj` in proportion to `weights`, in integers that sum to it (largest remainder; ties go to the earlier one).

    Weights are whole numbers >= 0 of any unit. With no weight at all there is nobody to give to: every part is 0, and the
    caller keeps the whole. Raises ValueError for a negative weight or total.
    """
    if total_uj < 0 or any(weight < 0 for weight in weights):
        raise ValueError(f"got a total of {total_uj} and weights {list(weights)!r}, expected nothing below 0")
    whole = sum(weights)
    if whole == 0:
        return [0] * len(weights)
    parts = [total_uj * weight // whole for weight in weights]
    left = total_uj - sum(parts)
    if left:
        rests = [total_uj * weight % whole for weight in weights]
        for i in sorted(range(len(weights)), key=rests.__getitem__, reverse=True)[:left]:
            parts[i] += 1
    return parts
