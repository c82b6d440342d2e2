"""The questions that dashboards ask of Prometheus, put together from parts."""

JOULES, TENANT_JOULES, STEADY_JOULES = "perjoule_request_joules_total", "perjoule_tenant_joules_total", "perjoule_steady_joules_total"
TOKENS, TENANT_TOKENS = "perjoule_tokens_total", "perjoule_tenant_tokens_total"
INPUT, OUTPUT = 'direction="input"', 'direction="output"'
HERE, MODEL, TENANT = 'instance=~"$instance"', 'instance=~"$instance", model=~"$model"', 'instance=~"$instance", tenant=~"$tenant"'
KIND = f"group by (job, instance, status) (perjoule_energy_measured_joules_total{{{HERE}}})"


def now(name: str) -> str:
    """A metric as it is, of the sidecars that are chosen."""
    return f"perjoule_{name}{{{HERE}}}"


def rate(metric: str, *where: str) -> str:
    """What a counter grows by in a second."""
    return f"rate({metric}{{{', '.join(where)}}}[$__rate_interval])"


def increase(metric: str, *where: str) -> str:
    """What a counter has grown by in the range that is looked at."""
    return f"increase({metric}{{{', '.join(where)}}}[$__range])"


def total(value: str) -> str:
    """One number."""
    return f"sum({value})"


def by(value: str, *labels: str) -> str:
    """A number for each of something."""
    return f"sum by ({', '.join(labels)}) ({value})"


def kinded(value: str, *labels: str) -> str:
    """A sum over sidecars, apart for each kind of joule: no simulated one is added to a measured one."""
    return by(f"{by(value, 'job', 'instance', *labels)} * on (job, instance) group_left (status) {KIND}", *labels, "status")


def quantile(q: float, metric: str, where: str, *labels: str) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({q}, {by(rate(metric + '_bucket', where), 'le', *labels)})"


def of_each(metric: str, where: str, *labels: str) -> tuple[tuple[str, str], ...]:
    """Median and tail of a histogram, and how they are called."""
    named = "".join(f" {{{{{label}}}}}" for label in labels)
    return tuple((quantile(q, metric, where, *labels), f"p{round(q * 100)}{named}") for q in (0.5, 0.95))


def balance(account: str, how: str = "") -> str:
    """One account of the balance, apart for each kind: as it is, or its `rate`."""
    metric = f"perjoule_energy_{account}_joules_total"
    return by(rate(metric, HERE) if how else f"{metric}{{{HERE}}}", "status")


def over(value: str, divisor: str) -> str:
    """A ratio; nothing, and not NaN, where there is nothing to divide by."""
    return f"{value} / ({divisor} > 0)"


def share(account: str) -> str:
    """One account of the balance as a part of what was measured, over the range that is looked at."""
    return over(*(by(increase(f"perjoule_energy_{of}_joules_total", HERE), "status") for of in (account, "measured")))


def part(metric: str, of: str, where: str) -> str:
    """A counter of joules as a part of another, over the range that is looked at."""
    return over(kinded(increase(metric, where)), kinded(increase(of, where)))


def for_nobody(metric: str, where: str) -> str:
    """The part of a counter of joules that did not go to completed requests; 0 where all did."""
    every, completed = (by(increase(metric, where, *only), "job", "instance") for only in ((), ('outcome="completed"',)))
    return over(kinded(f"{every} - ({completed} or 0 * {every})"), kinded(every))


def per_token(where: str, *labels: str, joules: str = JOULES, tokens: str = TOKENS, only: str = "", among: str = OUTPUT) -> str:
    """Joules for each token of requests that ended; `only` chooses joules, `among` tokens."""
    return over(kinded(rate(joules, *filter(None, (where, only))), *labels), kinded(rate(tokens, where, among), *labels))
