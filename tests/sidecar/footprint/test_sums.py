"""What joules come to adds up to the whole: by time, by group, and part by part of a bill."""

from collections import Counter
from dataclasses import astuple
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.footprint.allocation import bill
from perjoule.sidecar.footprint.carbon import Kind, grids, intensity
from perjoule.sidecar.footprint.focus import COLUMNS, About, rows
from perjoule.sidecar.footprint.prices import Fixed, PriceError
from perjoule.sidecar.footprint.remainder import Accounts, Drawn, accounts
from perjoule.sidecar.footprint.sci import Embodied, score
from perjoule.sidecar.footprint.statement import Factors, spread, statement
from perjoule.sidecar.footprint.steps import Step, Steps
from perjoule.sidecar.record import Balance, Status

HOUR_NS = 3_600_000_000_000
HOURS = 4
END = HOURS * HOUR_NS
amounts_uj = st.none() | st.integers(0, 10**13)
cells = st.fixed_dictionaries({
    "interval_unix_ns": st.integers(0, HOURS - 1).map(HOUR_NS.__mul__), "tenant": st.sampled_from([None, "a", "b"]),
    "model": st.sampled_from(["m", "n"]), "requests": st.integers(1, 9), "energy_uj": amounts_uj,
    "input_tokens": st.none() | st.integers(0, 9), "output_tokens": st.none() | st.integers(0, 9)})
drawn = st.builds(Drawn, st.just(0), *[st.integers(0, 10**13)] * 3, amounts_uj)
prices = st.lists(st.decimals(-1, 2, places=3), min_size=HOURS, max_size=HOURS).map(
    lambda values: Steps(Step(i * HOUR_NS, (i + 1) * HOUR_NS, Fraction(value)) for i, value in enumerate(values)))
intensities = st.lists(st.none() | st.decimals(0, 900, places=2), min_size=HOURS, max_size=HOURS).map(
    lambda values: grids(intensity("s", "z", Kind.AVERAGE, i * HOUR_NS, (i + 1) * HOUR_NS, value, "gCO2eq/kWh")
                         for i, value in enumerate(values) if value is not None))
factors = st.builds(Factors, st.sampled_from([Fraction(1), Fraction("1.17")]), prices, st.just("EUR"), intensities)


@st.composite
def ledgers(draw):
    """Groups as a ledger has them, and accounts of the same time."""
    groups = [{**cell, "with_energy": int(cell["energy_uj"] is not None), "statuses": ["measured"]}
              for cell in draw(st.lists(cells, max_size=12))]
    found = draw(st.dictionaries(st.integers(0, HOURS - 1).map(HOUR_NS.__mul__), drawn, max_size=HOURS))
    for cell in found.values():
        cell.measured_uj = cell.requests_uj + cell.idle_uj + cell.unattributed_uj
    return groups, Accounts(found, frozenset({Status.MEASURED}))


def counted(lines):
    """What lines have together."""
    amounts = [tuple(map(sum, zip(*((amount.micro or 0, amount.known_uj) for amount in each), strict=True)))
               for each in zip(*(line.amounts for line in lines), strict=True)]
    return sum(line.requests for line in lines), sum(line.energy_uj or 0 for line in lines), amounts


@given(ledgers(), factors)
def test_a_report_adds_up_however_it_is_grouped(ledger, asked):
    """Lines sum to the total; it is the same by tenant, by model and by nothing, and is energy × factors of its time, rounded once."""
    groups, found = ledger
    made = [statement(groups, by, found, asked, 3600, 0, END) for by in ([], ["tenant"], ["tenant", "model"])]
    for each in made:
        total = each.total
        if each.lines:
            assert counted(each.lines) == (total.requests, total.energy_uj or 0, [(a.micro or 0, a.known_uj) for a in total.amounts])
            assert counted(spread(each).lines) == counted(each.lines)
    assert len({repr((m.total.requests, m.total.energy_uj, m.total.amounts)) for m in made}) == 1
    drawn_uj = [(group["interval_unix_ns"], group["energy_uj"] or 0) for group in groups]
    drawn_uj += [(at, uj or 0) for at, d in found.cells.items() for uj in (d.idle_uj, d.unattributed_uj, d.host_uj)]
    exact = sum((uj * asked.price.mean(at, at + HOUR_NS).value * asked.pue / 3_600_000 for at, uj in drawn_uj), Fraction(0))
    assert (made[0].total.amounts[0].micro or 0) == round(exact)


@given(ledgers(), factors, st.booleans())
def test_a_bill_adds_up_to_what_was_measured(ledger, asked, is_spread):
    """To the last millionth of the currency and the last microjoule, and its ratios to one."""
    groups, found = ledger
    made = bill(groups, ["tenant", "model"], found, asked, 3600, 0, END, spread=is_spread)
    origin = ([(at, d.measured_uj + (d.host_uj or 0)) for at, d in found.cells.items()] or
              [(group["interval_unix_ns"], group["energy_uj"] or 0) for group in groups])
    exact = sum((uj * asked.price.mean(at, at + HOUR_NS).value * asked.pue / 3_600_000 for at, uj in origin), Fraction(0))
    assert sum(part.energy_uj for part in made.parts) == made.energy_uj == sum(uj for _, uj in origin)
    assert sum(part.cost_micro for part in made.parts) == made.cost_micro == round(exact)
    assert sum(part.ratio for part in made.parts) in ((0, 10**12) if not any(part.cost_micro for part in made.parts) else (10**12,))
    about = About("EUR", "a", "p", 0, END, asked.pue, is_spread)
    told = list(rows(made, about))
    assert sum((row["BilledCost"] for row in told), Decimal(0)) == made.cost_micro * Decimal("0.000001")
    assert all(list(row) == list(COLUMNS) for row in told)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3 * HOUR_NS), *[st.integers(0, 10**10)] * 3), min_size=1, max_size=10),
       st.sampled_from([60, 3600]))
def test_accounts_cut_by_time_lose_nothing(steps, grain_s):
    """Over all of the time, the cells sum to what changed from each run's first balance to its last, and each is conserved."""
    at, sums, kept = Counter(), {run: [0, 0, 0] for run in "ab"}, []
    for run, span_ns, *more in steps:
        at[run] += span_ns
        sums[run] = [old + new for old, new in zip(sums[run], more, strict=True)]
        kept.append(Balance(run, at[run], 0, sum(sums[run]), *sums[run], 0, "nvml", Status.MEASURED, host_uj=sums[run][1]))
    found = accounts(kept, grain_s * 1_000_000_000, 0, max(at.values()) + 1)
    runs = [[balance for balance in kept if balance.instance_id == run] for run in "ab"]
    for name in ("measured_uj", "requests_uj", "idle_uj", "unattributed_uj", "host_uj"):
        changed = sum(getattr(after, name) - getattr(before, name) for run in runs for before, after in pairwise(run))
        assert sum(getattr(cell, name) or 0 for cell in found.cells.values()) == changed
    for cell in found.cells.values():
        measured, requests, idle, unattributed, _ = astuple(cell)
        assert measured == requests + idle + unattributed


def test_what_lies_outside_of_the_time_is_left_out():
    """Half of the way between two balances is half of what changed; what a run had before its first balance is not of this time."""
    two = [Balance("a", HOUR_NS // 2, 0, 900, 900, 0, 0, 0, "nvml", Status.MEASURED),
           Balance("a", 3 * HOUR_NS // 2, 0, 1900, 900, 1000, 0, 0, "nvml", Status.MEASURED)]
    assert accounts(two, HOUR_NS, HOUR_NS, END).cells == {HOUR_NS: Drawn(500, 0, 500, 0, None)}
    assert accounts(two, HOUR_NS, 0, HOUR_NS).cells == {0: Drawn(500, 0, 500, 0, None)}
    assert accounts(two[1:], HOUR_NS, 0, END).cells == {}


def test_a_time_without_a_price_makes_no_bill():
    """A bill of a part would look like one of the whole."""
    group = {"interval_unix_ns": HOUR_NS, "tenant": "a", "model": "m", "requests": 1, "energy_uj": 5, "statuses": ["measured"]}
    asked = Factors(Fraction(1), Steps([Step(0, HOUR_NS, Fraction(1))]), "EUR")
    with pytest.raises(PriceError, match="no price is known"):
        bill([group], ["tenant", "model"], Accounts({}, frozenset()), asked, 3600, 0, END, spread=False)


def test_a_request_over_the_edge_is_paid_by_what_was_drawn_inside():
    """The record of the hour says 3 kWh, of which 2 were drawn in it: these are the bill, and the record's number stands beside."""
    kwh = 3_600_000_000_000
    group = {"interval_unix_ns": 0, "tenant": "a", "model": "m", "requests": 1, "energy_uj": 3 * kwh, "statuses": ["measured"]}
    found = Accounts({0: Drawn(3 * kwh, 2 * kwh, kwh, 0)}, frozenset({Status.MEASURED}))
    made = bill([group], ["tenant", "model"], found, Factors(Fraction(1), Fixed(Decimal("0.30")), "EUR"), 3600, 0, HOUR_NS, spread=False)
    assert [(p.what, p.energy_uj, p.ledger_uj, p.cost_micro) for p in made.parts] == [
        ("requests", 2 * kwh, 3 * kwh, 600_000), ("idle", kwh, None, 300_000)]


def test_prices_that_cancel_make_no_wild_bill():
    """A kWh at 1 and one at -0.999 are a bill of 0.001: by energy it is half each, by worth it would be 1000 and -999 times the whole."""
    kwh = 3_600_000_000_000
    groups = [{"interval_unix_ns": hour * HOUR_NS, "tenant": tenant, "requests": 1, "energy_uj": kwh, "statuses": ["measured"]}
              for hour, tenant in enumerate("ab")]
    price = Steps([Step(0, HOUR_NS, Fraction(1)), Step(HOUR_NS, 2 * HOUR_NS, Fraction("-0.999"))])
    made = bill(groups, ["tenant"], Accounts({}, frozenset()), Factors(Fraction(1), price, "EUR"), 3600, 0, 2 * HOUR_NS, spread=False)
    assert [part.cost_micro for part in made.parts] == [500, 500]


def test_no_factor_is_assumed():
    """Without a price and an intensity there is energy, and nothing else."""
    group = {"interval_unix_ns": 0, "tenant": "a", "requests": 1, "with_energy": 1, "energy_uj": 5, "input_tokens": None,
             "output_tokens": None, "statuses": ["measured"]}
    made = statement([group], ["tenant"], Accounts({}, frozenset()), Factors(), 3600, 0, HOUR_NS)
    assert (made.names, made.total.amounts, made.total.energy_uj) == ([], [], 5)


def test_sci_is_null_with_a_reason_until_all_is_known():
    """(E × I + M) / R: 100 g over 50 tokens and 20 g for a fifth of the hardware's years."""
    year_ns = 31_557_600_000_000_000
    embodied = Embodied(Fraction(100), Fraction(5)).over(year_ns)
    assert embodied == 20
    assert score("token", 50, 100_000_000, embodied).sci_g == Fraction(120, 50)
    partly = score("token", 50, 100_000_000, None)
    assert (partly.operational_g, partly.sci_g, partly.reason) == (2, None, "embodied emissions are not given")
    assert score("token", 50, None, embodied).reason == "no carbon intensity is known for any of the energy"
    assert score("image", None, 1, embodied).reason == "the number of images is not known, or is 0"
