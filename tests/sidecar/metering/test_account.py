"""One request's charge: its parts agree, its status says what kind of number it is, and its uncertainty grows with what was shared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.account import Account, Balance, Rule
from perjoule.sidecar.metering.terms import Terms
from perjoule.sidecar.metering.work import Work
from perjoule.sidecar.record import Status


def account():
    return Account("r", Work(0, visible=True, prompt_tokens=0, choices=1), "m", 0, 0)


TOKENS = Terms(1.0, 0.0, 1.0, 0.0)
MODEL = Terms(1.0, 100.0, 1.0, 0.0)
SURE = [[0.0] * 4] * 4
VAGUE = [[0.25 * (i == j) for j in range(4)] for i in range(4)]


def add(it, energy_uj, *, prefill=0, decode=1, steps=0.0, steady_ns=0, alone=True, whole=True, model_uj=None, price=TOKENS,
        mix=TOKENS):
    it.add(Terms(prefill, steps, decode, 0.0), energy_uj, energy_uj // 2, energy_uj if model_uj is None else model_uj,
           Rule(price, MODEL, mix), steady_ns=steady_ns, alone=alone, whole=whole)


def charge(it, best=Status.MEASURED, *, settled=True, idle_known=True, covariance=SURE, window_error=0.02, **more):
    return it.charge(best, method="token-share", source="nvml", boundary="gpu-board", devices=("GPU-0",), idle_known=idle_known,
                     settled=settled, covariance=covariance, window_error=window_error, calibration_id=None, **more)


STATUSES = {  # (the source's, settled, part of it missed) and what the charge is called
    (Status.MEASURED, True, False): Status.MEASURED,
    (Status.MEASURED, True, True): Status.MIXED,
    (Status.MEASURED, False, False): Status.PROVISIONAL,
    (Status.MEASURED, False, True): Status.PROVISIONAL,
    (Status.SIMULATED, True, False): Status.SIMULATED,
    (Status.SIMULATED, False, True): Status.SIMULATED,
    (Status.ESTIMATED, True, True): Status.ESTIMATED,
    (Status.UNAVAILABLE, True, False): Status.UNAVAILABLE,
}


@pytest.mark.parametrize(("case", "expected"), STATUSES.items())
def test_the_status_says_what_kind_of_number_it_is(case, expected):
    """Only a sensor's joules are ever measured, mixed or provisional; a simulated joule is simulated, settled or not."""
    best, settled, missed = case
    it = account()
    add(it, 1000)
    it.missed = missed
    assert charge(it, best, settled=settled).status is expected


def test_a_request_without_a_window_has_no_number():
    """Nothing was measured while it ran: null, not 0; while the counter is alive, nothing yet is a number, too."""
    assert charge(account()).status is Status.UNAVAILABLE
    assert charge(account()).energy_uj is None
    assert charge(account(), settled=False, alive=True).energy_uj == 0


def test_without_a_known_idle_the_active_part_is_null():
    """What lies above an unknown level is not known."""
    it = account()
    add(it, 1000)
    assert charge(it, idle_known=False).active_uj is None
    assert charge(it).active_uj == 500


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 100), st.integers(0, 100), st.booleans(), st.booleans(), st.booleans()),
                min_size=1, max_size=20))
def test_the_parts_agree(windows):
    """Over any windows: prefill and decode are the whole, the steady part is within it, the windows are counted."""
    it = account()
    for energy_uj, prefill, decode, steady, alone, whole in windows:
        add(it, energy_uj, prefill=prefill, decode=decode, steady_ns=steady * 100, alone=alone, whole=whole)
    seen = charge(it)
    assert seen.energy_uj == sum(window[0] for window in windows)
    assert seen.prefill_uj + seen.decode_uj == seen.energy_uj
    assert 0 <= seen.prefill_uj <= seen.energy_uj
    assert seen.steady_uj <= seen.energy_uj
    assert (seen.windows, seen.settled) == (len(windows), True)


def test_uncertainty_is_none_for_a_request_that_was_alone_all_the_time():
    """Whole windows that were not shared are the counter's own number."""
    it = account()
    add(it, 10**6)
    assert charge(it).uncertainty_uj == 0


@given(st.integers(10**6, 10**9), st.integers(10**6, 10**9))
def test_uncertainty_grows_with_what_was_shared_and_with_the_edges(first_uj, more_uj):
    """Each shared window, each prompt computed beside others and each window that it ran only part of makes the number less sure."""
    it = account()
    seen = []
    for more in ({"alone": False}, {"alone": False}, {"alone": False, "prefill": 9, "decode": 0}, {"whole": False}):
        add(it, first_uj if not seen else more_uj, **more)
        seen.append(charge(it).uncertainty_uj)
    assert 0 < seen[0] < seen[1] < seen[2] < seen[3]


def test_a_coefficient_that_is_not_known_matters_where_requests_differ():
    """A prompt beside an answer: twice the price of a step moves joules from one to the other. Two answers alike: it moves none."""
    apart, alike = account(), account()
    add(apart, 10**6, prefill=100, decode=0, alone=False, mix=Terms(0.5, 0.49, 0.01, 0.0))
    add(alike, 10**6, decode=1, steps=0.01, alone=False, mix=Terms(0.0, 0.5, 0.5, 0.0))
    assert charge(apart, covariance=VAGUE).uncertainty_uj > 1.5 * charge(apart).uncertainty_uj
    assert charge(alike, covariance=VAGUE).uncertainty_uj == charge(alike).uncertainty_uj


def test_a_model_that_predicts_windows_badly_is_that_much_less_sure():
    """Twice the window error, more uncertainty; before any is known, as for a model that is 4 % off."""
    it = account()
    add(it, 10**6, alone=False)
    assert charge(it, window_error=0.01).uncertainty_uj < charge(it).uncertainty_uj < charge(it, window_error=0.1).uncertainty_uj
    assert charge(it, window_error=None) == charge(it, window_error=0.04)
    assert charge(it, window_error=3.0) == charge(it, window_error=0.2)  # a scale that is not known yet is no error of a share


def test_a_rule_that_charges_more_than_the_model_would_is_that_uncertain():
    """By tokens 1 J, by the energy model 0.6: the difference is in the uncertainty."""
    it = account()
    add(it, 10**6, alone=False, model_uj=600_000.0)
    assert charge(it).uncertainty_uj == pytest.approx(400_000, rel=0.01)


def test_an_open_window_is_a_fifth_uncertain():
    """What is only estimated counts in full as energy, and a fifth of it as uncertainty (measured: less than that)."""
    it = account()
    add(it, 10**6)
    seen = charge(it, settled=False, alive=True, open_uj=500_000)
    assert (seen.energy_uj, seen.uncertainty_uj) == (1_500_000, 100_000)


@given(*[st.integers(0, 10**15)] * 3)
def test_a_balance_knows_whether_it_is_one(requests_uj, idle_uj, unattributed_uj):
    """One microjoule more or less anywhere, and it is not conserved."""
    balance = Balance(requests_uj + idle_uj + unattributed_uj, requests_uj, idle_uj, unattributed_uj)
    assert balance.conserved
    assert balance.as_json()["conserved"]
    balance.idle_uj += 1
    assert not balance.conserved
