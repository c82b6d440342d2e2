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
    parts, rests = [], []
    for weight in weights:
        product = total_uj * weight
        parts.append(product // whole)
        rests.append(product % whole)
    left = total_uj - sum(parts)
    if left:
        least = sorted(rests, reverse=True)[left - 1]  # who has a larger remainder gets one more; of those who have this one, the earlier
        left -= sum([rest > least for rest in rests])
        for i, rest in enumerate(rests):
            if rest > least:
                parts[i] += 1
            elif rest == least and left:
                parts[i] += 1
                left -= 1
    return parts
