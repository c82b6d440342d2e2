"""The work of ComfyUI's graphs: what is sampled, how large, how often; and that no graph raises or takes long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.comfyui import work_of
from perjoule.sidecar.record import Unit
from tests.fakes.comfyui import graph

PATCHES = 64 * 64  # of 1024 x 1024


def node(name, **inputs):
    return {"class_type": name, "inputs": inputs}


def test_the_default_workflow():
    work = work_of({"prompt": graph(steps=20, images=2)})
    assert (work.makes.unit, work.makes.units, work.makes.steps) == (Unit.IMAGE, 2, 20)
    assert (work.makes.width, work.makes.height) == (1024, 1024)
    assert work.work_tokens == PATCHES * 20 * 2
    assert work.model == "sd.safetensors"


def test_work_grows_with_steps_size_and_images():
    base = work_of({"prompt": graph()}).work_tokens
    assert work_of({"prompt": graph(steps=40)}).work_tokens == 2 * base
    assert work_of({"prompt": graph(width=2048)}).work_tokens == 2 * base
    assert work_of({"prompt": graph(images=4)}).work_tokens == 4 * base


def test_two_samplers_of_which_the_second_refines_a_larger_latent():
    """The usual hires fix: ten more steps at twice the side."""
    more = {"10": node("LatentUpscaleBy", samples=["3", 0], upscale_method="nearest", scale_by=2.0),
            "11": node("KSampler", steps=10, latent_image=["10", 0], denoise=0.5)}
    work = work_of({"prompt": graph() | more})
    assert work.work_tokens == PATCHES * 20 + 4 * PATCHES * 10
    assert (work.makes.width, work.makes.steps, work.makes.units) == (2048, 30, 1)


def test_a_base_and_a_refiner_share_the_steps():
    base = graph()
    base["3"] = node("KSamplerAdvanced", steps=25, start_at_step=0, end_at_step=20, latent_image=["5", 0])
    base["10"] = node("KSamplerAdvanced", steps=25, start_at_step=20, end_at_step=10000, latent_image=["3", 0])
    assert work_of({"prompt": base}).work_tokens == PATCHES * 25


def test_a_custom_sampler_has_its_steps_from_a_scheduler_and_its_size_from_another_node():
    flux = {"1": node("SamplerCustomAdvanced", noise=["2", 0], sigmas=["3", 0], latent_image=["4", 0]),
            "3": node("SplitSigmas", sigmas=["5", 0], step=3), "5": node("BasicScheduler", steps=28, scheduler="simple", denoise=1.0),
            "4": node("EmptySD3LatentImage", width=["6", 0], height=["6", 0], batch_size=1), "6": node("PrimitiveInt", value=512),
            "7": node("UNETLoader", unet_name="flux.safetensors"), "8": node("KSamplerSelect", sampler_name="euler")}
    work = work_of({"prompt": flux})
    assert (work.work_tokens, work.makes.width, work.model) == (32 * 32 * 28, 512, "flux.safetensors")


def test_a_video_is_counted_in_seconds():
    video = {"1": node("KSampler", steps=20, latent_image=["2", 0]),
             "2": node("EmptyHunyuanLatentVideo", width=832, height=480, length=81, batch_size=1),
             "3": node("CreateVideo", images=["1", 0], fps=16.0)}
    work = work_of({"prompt": video})
    assert (work.makes.unit, work.makes.units, work.makes.frames) == (Unit.VIDEO_SECOND, 81 / 16, 81)
    assert work.work_tokens == 52 * 30 * 20 * 21


def test_a_graph_of_unknown_nodes_is_taken_to_be_usual():
    work = work_of({"prompt": {"1": node("SomebodysMagic", knob=3), "2": node("SaveImage", images=["1", 0])}})
    assert work.work_tokens == PATCHES * 50
    assert (work.makes.units, work.makes.steps, work.model) == (None, None, None)


@pytest.mark.parametrize("asks", [{}, {"prompt": None}, {"prompt": []}, {"prompt": {"1": None, "2": {"class_type": 3}}},
                                  {"prompt": {"1": node("KSampler", latent_image=["1", 0], steps=2**70)}},
                                  {"prompt": {"1": node("KSampler", latent_image=[[], 0], steps="x")}}])
def test_what_is_no_graph(asks):
    assert work_of(asks).work_tokens > 0


NAMES = ("steps", "latent_image", "samples", "width", "height", "length", "batch_size", "scale_by", "sigmas", "amount", "fps", "value",
         "ckpt_name", "start_at_step", "end_at_step")
INPUTS = st.dictionaries(st.sampled_from(NAMES),
                         st.integers(-5, 10**9) | st.floats() | st.text(max_size=3) | st.none()
                         | st.tuples(st.sampled_from("123"), st.just(0)).map(list), max_size=8)
GRAPHS = st.dictionaries(st.sampled_from("123"), st.fixed_dictionaries({
    "class_type": st.sampled_from(["KSampler", "SamplerCustom", "RepeatLatentBatch", "LatentUpscaleBy", "EmptyLatentImage"]),
    "inputs": INPUTS}))


@given(GRAPHS)
def test_no_graph_raises(prompt):
    """Nor one whose links go round in circles."""
    work = work_of({"prompt": prompt})
    assert 0 <= work.work_tokens <= 2**53


def test_a_large_graph_of_long_chains_is_read_within_its_bounds():
    """Thousands of samplers, each behind the other: a hundred are looked at, each back over a few dozen links."""
    chain = {str(number): node("KSampler", steps=1, latent_image=[str(number - 1), 0]) for number in range(5000)}
    assert work_of({"prompt": chain}).makes.steps == 100
    assert work_of({"prompt": chain | {"x": node("KSampler", steps=1)}}).makes.steps is None  # more than that is not looked at
