"""A calibration is the prior until traffic has told better, and then what traffic told, under names that stay true."""

import json
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.sidecar.metering.calibration import LASTING, MOST_VERSIONS, Calibration, Key
from perjoule.sidecar.metering.prior import RELATIVE_SD, prior
from perjoule.sidecar.metering.terms import Terms
from tests.fakes.traffic import SPAN_NS, TRUTH, drawn, poisson, saturated

H200 = Key(gpu="NVIDIA H200", model="m", engine="vllm")


def learned(traffic, random, truth=TRUTH, noise=0.03, calibration=None):
    """A calibration that has seen this traffic."""
    calibration = calibration or Calibration(H200)
    for amounts, t_ns in traffic:
        calibration.learn(amounts, drawn(random, amounts, truth, noise), t_ns, SPAN_NS)
    return calibration


def test_it_begins_with_physics():
    """The prior's shape, half of each as its error, no joule seen."""
    fresh = Calibration(H200)
    assert (fresh.state, fresh.window_error, fresh.learned_ns) == ("prior", None, 0)
    assert tuple(fresh.coefficients) == pytest.approx(tuple(prior("NVIDIA H200")), rel=1e-5)
    assert [fresh.relative_covariance[i][i] for i in range(4)] == [RELATIVE_SD**2] * 4
    assert fresh.id.startswith("prior-")


@pytest.mark.parametrize("seed", range(5))
def test_an_open_mix_is_told_within_a_minute(seed):
    """Sixty seconds of Poisson traffic: fitted, and out of sample as good as the noise of a block."""
    random = Random(seed)
    found = learned(poisson(random, 600), random)
    assert found.state == "fitted"
    assert found.id.startswith("fitted-")
    assert found.window_error < 0.03


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.tuples(*[st.floats(0.6, 1.6)] * 4))
def test_known_coefficients_are_found_within_what_it_says(seed, off):
    """Whatever the truth around the prior, each coefficient is within four of its own standard deviations."""
    random, truth = Random(seed), Terms(*(t * f for t, f in zip(TRUTH, off, strict=True)))
    found = learned(poisson(random, 2000), random, truth)
    assert found.state == "fitted"
    for i, (c, t) in enumerate(zip(found.coefficients, truth, strict=True)):
        sd = found.relative_covariance[i][i] ** 0.5 * c
        assert abs(c - t) < 4 * sd, (i, c, t, sd)


@pytest.mark.parametrize("batch", [8, 16, 32, 64])
def test_uniform_saturation_tells_nothing(batch):
    """Ten minutes in which every amount is in proportion to every other: still the prior, however small the window error."""
    random = Random(batch)
    found = learned(saturated(random, 6000, batch), random)
    assert found.state == "prior"
    assert found.window_error < 0.03


def test_a_few_wild_windows_do_no_harm():
    """Compilation, throttling and clock steps in one window of fifty: the same ratios within a few percent."""
    clean, dirty = Random(3), Random(3)
    calm = learned(poisson(clean, 3000), clean)
    wild = Calibration(H200)
    for count, (amounts, t_ns) in enumerate(poisson(dirty, 3000)):
        energy_j = drawn(dirty, amounts)
        wild.learn(amounts, energy_j * (8.0 if count % 50 == 25 else 1.0), t_ns, SPAN_NS)
    for found in (calm, wild):
        assert found.state == "fitted"
    one, other = (found.coefficients.steps / found.coefficients.prefill for found in (calm, wild))
    assert one == pytest.approx(other, rel=0.15)


def test_a_lasting_change_is_followed():
    """Other weights behind the port: after some blocks out of line what was learned is forgotten, and the new truth is found."""
    random = Random(4)
    found = learned(poisson(random, 1500), random)
    before = found.id
    other = Terms(TRUTH.prefill, TRUTH.steps * 3, TRUTH.decode * 3, TRUTH.context)
    learned(poisson(random, 1500, t_ns=10**12), random, other, calibration=found)
    assert found.id != before
    assert found.coefficients.steps / found.coefficients.prefill == pytest.approx(other.steps / other.prefill, rel=0.1)
    assert LASTING < 20


def test_an_id_names_exact_coefficients():
    """Whenever the coefficients change, the id does; the versions list each pair once; sharing moved by two percent, not by noise."""
    random, found, seen = Random(5), Calibration(H200), {}
    for amounts, t_ns in poisson(random, 6000):
        found.learn(amounts, drawn(random, amounts), t_ns, SPAN_NS)
        assert seen.setdefault(found.id, found.coefficients) == found.coefficients
    assert [version.id for version in found.versions] == list(seen)
    assert 2 <= len(seen) < 12
    assert Calibration(H200).id == found.versions[0].id
    assert Calibration(Key(gpu="NVIDIA H200", model="other")).id != found.versions[0].id


def test_scale_alone_is_no_new_version():
    """A board that draws a fifth less for everything divides as before."""
    random = Random(6)
    found = learned(poisson(random, 3000), random)
    before = found.coefficients
    learned(poisson(random, 3000, t_ns=10**12), random, Terms(*(0.8 * c for c in TRUTH)), calibration=found)
    assert found.coefficients.steps / found.coefficients.prefill == pytest.approx(before.steps / before.prefill, rel=0.1)


def test_a_break_begins_a_new_block():
    """Nine windows, silence, nine windows: no block of a second was seen."""
    found = Calibration(H200)
    for start in (0, 10**10):
        for window in range(1, 10):
            found.learn(TRUTH, 10.0, start + window * SPAN_NS, SPAN_NS)
    assert found.learned_ns == 0
    found.learn(TRUTH, 10.0, 10**10 + 10 * SPAN_NS, SPAN_NS)
    assert found.learned_ns == 10 * SPAN_NS


@given(st.lists(st.tuples(st.tuples(*[st.floats(0.0, 1e7)] * 4), st.floats(0.0, 1e4), st.integers(1, 10**10), st.integers(0, 10**10)),
                max_size=60))
def test_nothing_can_break_it(windows):
    """Any amounts, energies, spans and pauses: coefficients are positive, errors are numbers, ids name coefficients."""
    found, t_ns = Calibration(H200), 0
    for amounts, active_j, span_ns, pause_ns in windows:
        t_ns += span_ns + pause_ns
        found.learn(Terms(*amounts), active_j, t_ns, span_ns)
    assert min(found.coefficients) > 0
    assert all(found.relative_covariance[i][i] >= 0 for i in range(4))
    assert Calibration.from_json(json.loads(json.dumps(found.as_json(1)))).id == found.id


def test_a_restart_goes_on_where_it_was():
    """Through JSON, with the same id, and afterwards the same learning."""
    one, two = Random(7), Random(7)
    traffic = list(poisson(Random(8), 1000))
    straight = learned(traffic, one)
    half = learned(traffic[:505], two)
    told = json.loads(json.dumps(half.as_json(1_800_000_000)))
    again = Calibration.from_json(told)
    assert again.as_json(0) == told
    assert (again.id, again.key, again.window_error) == (half.id, H200, half.window_error)
    learned(traffic[505:], two, calibration=again)
    assert again.learned_ns == pytest.approx(straight.learned_ns, abs=2 * 10**9)
    assert tuple(again.coefficients) == pytest.approx(tuple(straight.coefficients), rel=0.1)
    assert [version.published_unix_s for version in again.versions[:1]] == [1_800_000_000]


def test_versions_are_bounded():
    """However long it runs, the list of versions does not grow beyond its bound, and the latest is in use."""
    found = Calibration(H200)
    for number in range(2 * MOST_VERSIONS):
        found._publish("fitted", Terms(1.0, 100.0 + number, 1.0, 1.0))
    assert len(found.versions) == MOST_VERSIONS
    assert found.coefficients.steps == 100.0 + 2 * MOST_VERSIONS - 1


@pytest.mark.parametrize("change", [
    {"key": {}}, {"key": {"gpu": 1}}, {"prior": [1, 2, 3]}, {"prior": [1.0, 2.0, 3.0, -4.0]}, {"learned_ns": "long"}, {"fit": {}},
    {"versions": []}, {"versions": [{}]}, {"versions": [7]}, {"missed_j": None},
])
def test_a_state_that_cannot_be_is_refused(change):
    """With what was got and what was expected."""
    with pytest.raises(ValueError, match=r"got .*expected"):
        Calibration.from_json(Calibration(H200).as_json(1) | change)


@pytest.mark.parametrize("value", [None, [], "text", {}, {"key": 1}])
def test_what_is_no_calibration_is_refused(value):
    """Anything that JSON can say."""
    with pytest.raises(ValueError, match=r"a calibration: got .*expected an object with key"):
        Calibration.from_json(value)


def test_a_window_costs_microseconds():
    """Well below a hundred of processor time on average, on a busy machine, too (about ten on a quiet one)."""
    random = Random(9)
    windows = [(amounts, drawn(random, amounts), t_ns) for amounts, t_ns in poisson(random, 2000)]
    found, before = Calibration(H200), time.process_time()
    for amounts, active_j, t_ns in windows:
        found.learn(amounts, active_j, t_ns, SPAN_NS)
    assert (time.process_time() - before) / len(windows) < 100e-6


@pytest.mark.parametrize("group", [None, "GPU-0", [1]])
def test_a_group_that_is_none_is_refused(group):
    """And so is the file of an earlier version, which knew how many boards there were and not which."""
    told = Calibration(H200).as_json(1)
    with pytest.raises(ValueError, match=r"key: group: got .* expected a list of boards' UUIDs"):
        Calibration.from_json(told | {"key": told["key"] | {"group": group}})
    with pytest.raises(ValueError, match=r"key: got .*boards.*, expected an object with gpu, group"):
        Calibration.from_json(told | {"key": {"boards": 1} | {name: value for name, value in told["key"].items() if name != "group"}})
