"""What one request says of itself: its times, tokens and joules, put together from what its client saw and what the sidecar recorded."""

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import sub
from typing import NamedTuple

from perjoule.bench.load.sample import Sample
from perjoule.bench.measures.run import Record, Run
from perjoule.sidecar.units import NS_PER_MS, UJ_PER_J

NS_PER_US = 1_000
US_PER_MS = 1_000


class Served(NamedTuple):
    """One request, in milliseconds, tokens and microjoules; None is unknown, or never came. docs/measures.md has the formulas."""

    sample: Sample
    tokens: float  # that its client got: usage, else one for each chunk
    ttfb: float | None
    ttft: float | None
    tpot: float | None
    ntpot: float | None
    e2e: float | None
    ttft_intended: float | None
    e2e_intended: float | None
    send_lag: float
    energy_uj: int | None
    prefill_uj: int | None
    decode_uj: int | None
    uncertainty_uj: int | None

    @property
    def completed(self) -> bool:
        return self.sample.outcome == "completed"

    @property
    def over_ns(self) -> int:
        """When it was over, or the last that was seen of it."""
        s = self.sample
        return max(t for t in (s.sent_ns, s.first_byte_ns, s.last_token_ns, s.end_ns) if t is not None)

    @property
    def energy_j(self) -> float | None:
        return None if self.energy_uj is None else self.energy_uj / UJ_PER_J

    def times(self) -> dict[str, float | None]:
        """Its times by the names of their formulas."""
        return {"ttfb": self.ttfb, "ttft": self.ttft, "tpot": self.tpot, "ntpot": self.ntpot, "e2e": self.e2e,
                "ttft_intended": self.ttft_intended, "e2e_intended": self.e2e_intended}


def served(run: Run) -> list[Served]:
    """Every request of a run, in the order of the schedule."""
    return [one(sample, run.records.get(sample.index)) for sample in run.samples]


def one(sample: Sample, record: Record | None) -> Served:
    """One request and, where there is one, its record."""
    n, record = sample.output_tokens, record or {}
    to_end = _ms(sample.end_ns, sample.sent_ns) if sample.outcome == "completed" else None
    between = _ms(sample.last_token_ns, sample.first_token_ns) if sample.last_token_ns is not None else None
    return Served(sample, float(len(sample.chunk_ns) if n is None else n),
                  ttfb=_ms(sample.first_byte_ns, sample.sent_ns), ttft=_ms(sample.first_token_ns, sample.sent_ns),
                  tpot=between / (n - 1) if between is not None and n is not None and n > 1 else None,
                  ntpot=to_end / n if to_end is not None and n else None, e2e=to_end,
                  ttft_intended=_ms(sample.first_token_ns, sample.intended_ns),
                  e2e_intended=_ms(sample.end_ns, sample.intended_ns) if to_end is not None else None,
                  send_lag=(sample.sent_ns - sample.intended_ns) / NS_PER_MS,
                  energy_uj=record.get("energy_uj"), prefill_uj=record.get("prefill_uj"), decode_uj=record.get("decode_uj"),
                  uncertainty_uj=record.get("uncertainty_uj"))


def gaps(requests: Iterable[Served]) -> tuple[dict[float, float], dict[float, float]]:
    """All gaps between chunks with content, in ms to 1 µs, and how often each came; and the same as ML.ENERGY counts them, by tokens:
    of n tokens in k chunks, a gap g stands for n / k tokens of g · k / n each."""
    icl: Counter[int] = Counter()
    itl: dict[int, float] = {}
    for request in requests:
        chunks: Sequence[int] = request.sample.chunk_ns
        if len(chunks) < 2:
            continue
        found = Counter([gap // NS_PER_US for gap in map(sub, chunks[1:], chunks)])
        icl.update(found)
        share = max(request.tokens, 1.0) / len(chunks)
        for gap_us, count in found.items():
            each = round(gap_us / share)
            itl[each] = itl.get(each, 0.0) + count * share
    return {us / US_PER_MS: float(count) for us, count in icl.items()}, {us / US_PER_MS: count for us, count in itl.items()}


def _ms(t_ns: int | None, since_ns: int | None) -> float | None:
    return None if t_ns is None or since_ns is None else (t_ns - since_ns) / NS_PER_MS
