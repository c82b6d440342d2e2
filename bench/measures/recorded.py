"""A recording of a real engine on a real GPU as a run: the same code measures it that measures a replay."""

from pathlib import Path

from perjoule.bench.load.sample import Observation, Sample
from perjoule.bench.measures.run import Record, Run, run_of
from perjoule.bench.recording import Recording, play


def recorded(path: Path, *, concurrency: int = 0, method: str = "step-model") -> Run:
    """The requests as samples, each change of the counter as an observation, and the records that the meter of production makes of them.
    `concurrency` is that of a closed loop, 0 for other loads. Raises ValueError for what is no recording.

    A recording has the counter alone, so the looks say how its joules were divided at the first and the last alone. The meter's own account
    begins with the second row: from that on it knows when a window began."""
    recording = Recording(path)
    origin_ns = recording.begin_ns
    meter, records = play(recording, method)
    samples = [
        Sample(i, request["t0"] - origin_ns, request["t0"] - origin_ns, request["t"][0] - origin_ns, request["t"][0] - origin_ns,
               request["t"][-1] - origin_ns, request["end"] - origin_ns, [t_ns - origin_ns for t_ns in request["t"]], request["in"],
               sum(request["n"]), wanted_input_tokens=request["in"], wanted_output_tokens=request["want"], http_status=200,
               outcome="completed", request_id=str(i), record_id=str(i)) for i, request in enumerate(recording.requests)]
    looks = [Observation(before - origin_ns, before, {"measured_uj": uj}) for before, _, uj in recording.counter[1:]]
    last = meter.balance
    looks[0].balance = {**(looks[0].balance or {}), "requests_uj": 0, "idle_uj": 0, "unattributed_uj": 0}
    looks[-1].balance = {**(looks[-1].balance or {}), "requests_uj": last.requests_uj, "idle_uj": last.idle_uj,
                         "unattributed_uj": last.unattributed_uj}
    asked = {"run_id": recording.name, "name": recording.name, "exact_lengths": True,
             "setting": {"model_id": recording.model, "engine": recording.engine, "gpu_model": recording.gpu, "num_gpus": 1,
                         "max_num_seqs": concurrency or None, "energy_source": "recording", "energy_method": method,
                         "boundary": "gpu-board"},
             "load": {"mode": "closed", "concurrency": concurrency} if concurrency else {"mode": "trace"}}
    rows: list[Record] = [record.as_json() for record in records.values()]
    return run_of(asked, samples, rows, looks)
