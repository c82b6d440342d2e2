"""Every number that a result shows, in one place: its formula's id, its unit, which way is better, and what it is in words.

An id ends in a version. Whoever changes what a number means raises it, so that two results with one id mean one thing.
"""

from typing import Any, NamedTuple


class Formula(NamedTuple):
    """What a number is. `better` is "lower", "higher" or "" where neither is; `words` use s for the send, i for the intended send, c₁ … cₖ
    for the arrivals of chunks with content, e for the end of the answer, and n for its output tokens (the engine's usage)."""

    version: int
    unit: str
    better: str
    words: str


FORMULAS: dict[str, Formula] = {
    # times of a request
    "ttfb": Formula(1, "ms", "lower", "first byte of the answer's body − s"),
    "ttft": Formula(1, "ms", "lower", "c₁ − s: the first chunk with content (text, reasoning or a tool call), not a role or an empty one"),
    "icl": Formula(1, "ms", "lower", "inter-chunk latency: the gaps cⱼ₊₁ − cⱼ of all requests, pooled, to 1 µs; never padded with zeros"),
    "itl_mlenergy": Formula(1, "ms", "lower", "ML.ENERGY's inter-token latency after its loader's smoothing: a gap is shared evenly by the "
                            "tokens of its chunk, pooled over tokens; tokens are spread evenly over a request's chunks (n / k)"),
    "e2el_mlenergy": Formula(1, "ms", "lower", "cₖ − s: to the last chunk with content, as ML.ENERGY's e2el"),
    "tpot": Formula(1, "ms", "lower", "(cₖ − c₁) / (n − 1), for n > 1: without the first token"),
    "ntpot": Formula(1, "ms", "lower", "(e − s) / n: with everything"),
    "e2e": Formula(1, "ms", "lower", "e − s, to the end of the answer"),
    "ttft_intended": Formula(1, "ms", "lower", "c₁ − i: with the client's own delay, so that a client that is late hides nothing"),
    "e2e_intended": Formula(1, "ms", "lower", "e − i"),
    "send_lag": Formula(1, "ms", "lower", "s − i, of every request"),
    # tokens
    "input_tokens": Formula(1, "tokens", "", "tokens of prompts, cached ones included (usage)"),
    "output_tokens": Formula(1, "tokens", "", "n, reasoning included (usage); of a request without usage its chunks, which is marked"),
    # joules of a request, by the sidecar's records
    "energy_per_response": Formula(1, "J", "lower", "the sidecar's settled record of the request (its share of what was drawn while it "
                                   "ran, idle draw of the busy board included); the metric is the mean of completed requests"),
    "record_energy_per_output_token": Formula(1, "J", "lower", "of one request: its record's joules / n"),
    "paired_energy_per_output_token": Formula(1, "J", "lower", "Σ of the records / Σ n, over requests that both runs completed, "
                                              "of one schedule or of equal lengths in its places (`perjoule compare`)"),
    "prefill_j": Formula(1, "J", "lower", "Σ of the records' parts for prompts"),
    "decode_j": Formula(1, "J", "lower", "Σ of the records' parts for outputs"),
    "wasted_j": Formula(1, "J", "lower", "Σ of the records of requests that failed, were cancelled or broken off"),
    "energy_delay_product": Formula(1, "J·s", "lower", "mean over completed requests of their record's joules × e2e in seconds"),
    # joules of a window, by the energy counter
    "energy_per_output_token": Formula(1, "J", "lower", "what the counter advanced in the window / output tokens that arrived in it; a "
                                       "chunk counts n / k tokens. Prompts, failures and idle moments in the window are in it"),
    "energy_per_total_token": Formula(1, "J", "lower", "what the counter advanced in the window / (output tokens that arrived in it + "
                                      "prompt tokens of requests whose first chunk came in it)"),
    "tokens_per_joule": Formula(1, "1/J", "higher", "1 / energy_per_output_token"),
    "idle_j": Formula(1, "J", "lower", "what was drawn while nothing ran (the sidecar's balance, from its first look to its last)"),
    "unattributed_j": Formula(1, "J", "lower", "what belongs to no request and was not idle (the same balance)"),
    "avg_power_w": Formula(1, "W", "", "what the counter advanced in the window / its duration"),
    "avg_batch_size": Formula(1, "requests", "", "mean over the window's time of requests between send and end, as the client saw them"),
    # the run
    "request_rate_achieved": Formula(1, "1/s", "", "(requests sent − 1) / (last send − first send)"),
    "request_throughput": Formula(1, "1/s", "higher", "completed requests / the whole run, first send to last end"),
    "output_throughput": Formula(1, "tokens/s", "higher", "output tokens that arrived in the window / its duration"),
    "goodput_rps": Formula(1, "1/s", "higher", "completed requests that kept every objective / the whole run, first send to last end"),
    "goodput_share": Formula(1, "", "higher", "completed requests that kept every objective / (completed + failed); those that we "
                             "cancelled or broke off can show neither. A time that a request does not have keeps no objective, but "
                             "tpot with n = 1 does"),
    "goodput_per_watt": Formula(1, "1/J", "higher", "goodput_rps / mean power of the whole run: good requests per joule"),
}


def formula_id(key: str) -> str:
    """As "ttft/1". Raises KeyError for a number that is not here."""
    return f"{key}/{FORMULAS[key].version}"


def definitions(keys: Any = FORMULAS) -> dict[str, str]:
    """The formulas of these numbers in words, by id."""
    return {formula_id(key): FORMULAS[key].words for key in FORMULAS if key in keys}
