"""Clients on other hosts are the same workers; here the cluster is one machine, whose clock is our own."""

import pytest

from perjoule.bench.child import FailedError, child
from perjoule.bench.load import ray_hosts
from perjoule.bench.load.driver import drive
from perjoule.bench.load.job import AsGiven
from perjoule.bench.load.schedule import Plan, schedule
from perjoule.bench.workloads.workload import Turn, Workload


def test_without_ray_it_is_said(monkeypatch):
    """With the way to get it."""
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(FailedError, match="pip install ray"):
        ray_hosts.hosts()


@pytest.mark.filterwarnings("ignore")
async def test_a_schedule_through_ray():
    """Every request once, from both processes; the clocks agree within what is stated."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        work = Workload("hand", "hand", (Turn(body={"golden": {"tokens": 2, "gap_ms": 1}}),), 1)
        plan = schedule(work, Plan("open", arrivals="poisson", request_rate=50.0, requests=30))
        async with child("perjoule.bench.load.golden") as server:
            run = drive(plan, work, server["url"], AsGiven(), "ray", processes=2, link=ray_hosts.on(ray_hosts.hosts()))
            samples = [sample async for sample in run]
    finally:
        ray.shutdown()
    assert sorted(sample.index for sample in samples) == list(range(30))
    assert {sample.outcome for sample in samples} == {"completed"}
    assert {sample.client for sample in samples} == {0, 1}
    assert len(run.clocks) == 2
    assert all(abs(ahead_ns) <= error_ns for ahead_ns, error_ns in run.clocks)
    assert all(sample.sent_ns >= sample.intended_ns for sample in samples)
