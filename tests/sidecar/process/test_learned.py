"""Which calibrations the meter goes by, between engines, models and runs."""

import logging
from random import Random

import pytest

from perjoule.adapters.calibrations import CalibrationFolder
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.metering.pools import read_pools
from perjoule.sidecar.ports import Device, Engine
from perjoule.sidecar.process.learned import Learned, key_of
from tests.fakes.sidecar import sidecar
from tests.fakes.traffic import SPAN_NS, drawn, poisson
from tests.fakes.upstream import answer, scripted

DEVICES = (Device("GPU-0", "NVIDIA H200", 700),)
ENGINE = Engine("vllm", "0.25.1", "a/b")


def learn(meter, seed=0, windows=400, pool=0):
    """Traffic, straight into a calibration that the meter goes by."""
    random = Random(seed)
    for amounts, t_ns in poisson(random, windows):
        meter.divisions[pool].calibration.learn(amounts, drawn(random, amounts), t_ns, SPAN_NS)


@pytest.mark.parametrize(("devices", "gpu", "group", "limit_w"), [
    (DEVICES, "NVIDIA H200", ("GPU-0",), 700),
    ((Device("GPU-1", "NVIDIA H200", 700), *DEVICES), "NVIDIA H200", ("GPU-0", "GPU-1"), 700),
    ((*DEVICES, Device("GPU-1", "NVIDIA H200", 500)), "NVIDIA H200", ("GPU-0", "GPU-1"), None),
    ((Device("a", "CPU"), Device("b", "GPU")), "CPU + GPU", ("a", "b"), None),
    ((), "", (), None),
])
def test_the_key_of_a_group(devices, gpu, group, limit_w):
    """Names once each, the boards in whatever order they are given, and the cap if they share one."""
    key = key_of(devices, ENGINE)
    assert (key.gpu, key.group, key.power_limit_w) == (gpu, group, limit_w)
    assert (key.model, key.engine, key.engine_version) == ("a/b", "vllm", "0.25.1")


async def test_it_begins_with_physics_of_these_boards(tmp_path):
    """Before any engine has answered."""
    meter = Meter(DEVICES)
    Learned(meter, CalibrationFolder(tmp_path))
    assert meter.divisions[0].calibration.state == "prior"
    assert 110 < meter.divisions[0].calibration.coefficients.steps < 120


async def test_what_was_learned_is_there_after_a_restart(tmp_path):
    """Saved at the end of one run, in use as soon as the engine is known in the next."""
    first = Meter(DEVICES)
    learned = Learned(first, CalibrationFolder(tmp_path))
    await learned.is_of(ENGINE)
    learn(first)
    await learned.save()
    second = Meter(DEVICES)
    await Learned(second, CalibrationFolder(tmp_path)).is_of(ENGINE)
    assert second.divisions[0].calibration.state == "fitted"
    assert second.divisions[0].calibration.id == first.divisions[0].calibration.id


async def test_another_model_is_another_calibration(tmp_path):
    """It begins with physics, and the first one is found again when its model comes back."""
    meter = Meter(DEVICES)
    learned = Learned(meter, CalibrationFolder(tmp_path))
    await learned.is_of(ENGINE)
    learn(meter)
    fitted = meter.divisions[0].calibration.id
    await learned.is_of(Engine("vllm", "0.25.1", "c/d"))
    assert meter.divisions[0].calibration.state == "prior"
    await learned.is_of(ENGINE)
    assert meter.divisions[0].calibration.id == fitted


async def test_each_pool_has_a_calibration_of_its_own(tmp_path):
    """Two ranks on boards of one kind: each is saved under its own boards, and found again by them."""
    devices = (*DEVICES, Device("GPU-1", "NVIDIA H200", 700))
    first = Meter(devices, pools=read_pools("0=GPU-0;1=GPU-1"))
    learned = Learned(first, CalibrationFolder(tmp_path))
    await learned.is_of(ENGINE)
    learn(first, pool=1)
    await learned.save()
    assert [division.calibration.state for division in first.divisions] == ["prior", "fitted"]
    swapped = Meter(devices, pools=read_pools("0=GPU-1;1=GPU-0"))
    await Learned(swapped, CalibrationFolder(tmp_path)).is_of(ENGINE)
    ids = [[division.calibration.id for division in meter.divisions] for meter in (first, swapped)]
    assert ids[0] == ids[1][::-1]


async def test_what_cannot_be_recognised_again_is_not_kept(tmp_path):
    """An engine that tells no model: its calibration lives as long as the sidecar."""
    meter = Meter(DEVICES)
    learned = Learned(meter, CalibrationFolder(tmp_path))
    await learned.is_of(Engine("openai"))
    learn(meter)
    await learned.save()
    assert meter.divisions[0].calibration.state == "fitted"
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_gone_is_said_and_survived(tmp_path, caplog):
    """A warning; the calibration in use stays."""
    meter = Meter(DEVICES)
    learned = Learned(meter, CalibrationFolder(tmp_path / "gone"))
    await learned.is_of(ENGINE)
    learn(meter)
    with caplog.at_level(logging.WARNING):
        await learned.save()
    assert "is not kept" in caplog.text
    assert meter.divisions[0].calibration.state == "fitted"


async def test_a_sidecar_saves_what_it_has_learned_when_it_stops(tmp_path):
    """And goes by it when it starts again."""
    folder = CalibrationFolder(tmp_path)
    async with scripted([answer(b"{}")]) as engine:
        async with sidecar(engine.url, calibrations=folder) as front:
            assert front.service.meter.divisions[0].calibration.key.model == "m"
            learn(front.service.meter)
            fitted = front.service.meter.divisions[0].calibration.id
        assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
        async with sidecar(engine.url, calibrations=folder) as front:
            assert front.service.meter.divisions[0].calibration.id == fitted
