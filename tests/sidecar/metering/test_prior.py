"""The physics prior: a step in prompt tokens from the GPU's name alone, and what a known model changes."""

import pytest

from perjoule.sidecar.metering.prior import DATASHEETS, GENERIC, Shape, datasheet, prior


@pytest.mark.parametrize(("reported", "name"), [
    ("NVIDIA H200", "H200"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA A100-SXM4-80GB", "A100"),
    ("Tesla V100-SXM2-16GB", "V100"), ("NVIDIA GH200 480GB", "GH200"), ("NVIDIA H20", "H20"), ("NVIDIA B200", "B200"),
    ("NVIDIA L4", "L4"), ("NVIDIA L40S", "L40S"), ("NVIDIA A10G", "A10G"), ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ("AMD Instinct MI300X", "MI300X"), ("a power model of an H200", "H200"), ("NVIDIA H200 (replayed)", "H200"),
])
def test_names_as_drivers_report_them(reported, name):
    """The longest name of the table that the driver's name has as words."""
    assert datasheet(reported) == DATASHEETS[name]


@pytest.mark.parametrize("reported", ["", "NVIDIA H2000", "soc-0", "GPU-H200"[:5]])
def test_an_unknown_gpu_is_one_in_between(reported):
    """No word of the name is in the table."""
    assert datasheet(reported) == GENERIC


def test_an_h200_is_as_it_was_measured():
    """110 to 120 prompt tokens a step, 0.001 for a token of context (fits of recordings of an 8B model)."""
    found = prior("NVIDIA H200")
    assert found.prefill == 1.0
    assert 110 < found.steps < 120
    assert found.context == pytest.approx(0.001, rel=0.1)


@pytest.mark.parametrize("parameters", [1e9, 70e9])
def test_the_size_of_a_dense_model_does_not_matter_to_a_step(parameters):
    """A step and a prompt token both touch every weight; context alone gets cheaper beside them."""
    small, other = prior("NVIDIA A100"), prior("NVIDIA A100", Shape(parameters=parameters))
    assert other.steps == pytest.approx(small.steps)
    assert other.context * parameters == pytest.approx(small.context * 8e9)


def test_a_mixture_of_experts_and_quantized_weights():
    """A step reads all experts and a prompt token computes with some; half the bytes are half a step."""
    dense, experts = prior("H100"), prior("H100", Shape(parameters=40e9, active_parameters=8e9))
    assert experts.steps == pytest.approx(5 * dense.steps)
    assert prior("H100", Shape(weight_bytes=1.0)).steps == pytest.approx(dense.steps / 2)


def test_every_datasheet_makes_a_prior():
    """Positive terms, and a step that costs tens to hundreds of prompt tokens."""
    for name in DATASHEETS:
        assert 10 < prior(name).steps < 500, name
        assert min(prior(name)) > 0
