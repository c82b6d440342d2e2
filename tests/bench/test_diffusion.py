"""The bench of images: what it says of a run, worked out by hand, and what it does not accept. tests/engines runs it on real images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from perjoule.bench.diffusion import Level

PERJOULE = str(Path(sys.executable).with_name("perjoule"))


def level(**changes):
    """Two requests of two images: 400 J and 600 J by their records, 1010 J by the counter, which shows 40 J at once."""
    return Level(**{"in_flight": 1, "images": 4, "seconds": 2.5, "window_j": 1010.0, "quantum_j": 40.0, "record_j": [400.0, 600.0],
                    "iteration_j": [420.0, 580.0]} | changes).as_json()


def test_a_run_is_summed_up():
    """By the images, by each of the three."""
    said = level()
    assert said["joules_per_image"] == {"records": 250.0, "window": 252.5, "iterations": 250.0}
    assert (said["difference_j"], said["closes"]) == (-10.0, True)
    assert level(iteration_j=[])["joules_per_image"]["iterations"] is None
    assert json.dumps(said)


@pytest.mark.parametrize("changes", [{"window_j": 1041.0}, {"window_j": 959.0}, {"conserved": False}])
def test_a_run_that_does_not_add_up_says_so(changes):
    """More or less than the counter shows at once, or an account that is not conserved."""
    assert level(**changes)["closes"] is False


@pytest.mark.parametrize(("flags", "said"), [
    (["--engine=http://127.0.0.1:1", "--energy=simulated", "--in-flight=0"], "expected 1 or more"),
    (["--engine=http://127.0.0.1:1", "--energy=simulated", "--in-flight=x"], "invalid literal"),
    (["--engine=http://127.0.0.1:1", "--energy=nonsense"], "got 'nonsense', expected"),
    ([], "--engine"),
])
def test_a_wrong_flag_is_said(flags, said):
    """Exit code 2, and what was expected."""
    done = subprocess.run([PERJOULE, "bench", "diffusion", *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
