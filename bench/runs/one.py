"""One run, from the schedule to the page: everything that is learned is written at once, so that a run that breaks off is a run, too."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import orjson

from perjoule import __version__
from perjoule.bench.board.page import page
from perjoule.bench.load.driver import Drive
from perjoule.bench.load.job import Prompter
from perjoule.bench.load.sample import Observation, Sample
from perjoule.bench.load.schedule import Plan, Schedule, load_of, schedule
from perjoule.bench.load.schedule import read as read_schedule
from perjoule.bench.measures.result import result_of
from perjoule.bench.measures.run import ASKED, OBSERVATIONS, PAGE, RECORDS, RESULT, SAMPLES, SCHEDULE, line, read_run
from perjoule.bench.runs.operator import Operator
from perjoule.bench.workloads.workload import Workload
from perjoule.sidecar.relay.ids import record_id

LOOK_EVERY_S = 0.5


class View(Protocol):
    """Who is told how a run goes."""

    def phase(self, text: str) -> None: ...
    def planned(self, plan: Schedule, done: int) -> None: ...
    def looked(self, now_ns: int, observation: Observation) -> None: ...
    def ended(self, sample: Sample) -> None: ...


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be run. `setting` is what is known of engine and client beforehand, `asked` what else goes into run.json."""

    url: str
    workload: Workload
    plan: Plan
    prompter: Prompter
    setting: Mapping[str, Any]
    asked: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    drive: Mapping[str, Any] = field(default_factory=dict)  # what else `Drive` takes


class ResumeError(ValueError):
    """What is there cannot be gone on with; the text says what differs."""


async def carry_out(task: Task, folder: Path, operator: Operator, view: View, stopped: asyncio.Event, *, resume: bool) -> dict[str, Any]:
    """Run it; the result, which is in the folder with all that it was made of. With `stopped` it ends early and says so.
    Raises FailedError, ResumeError, OSError."""
    planned = schedule(task.workload, task.plan)
    done, run_id = _prepared(folder, planned, resume=resume)
    drive = Drive(planned, task.workload, task.url, task.prompter, run_id, headers=task.headers, skip=done.keys(),
                  begin_ns=_goes_on_at(planned, done), **task.drive)
    first = task.workload.turns[0]
    setting = {**await operator.setting(), "workload": task.workload.name, "workload_sha256": task.workload.sha256,
               "schedule_sha256": planned.sha256, "endpoint": first.endpoint, "client_hosts": 1, "client_processes": drive.processes,
               **task.setting}
    run: dict[str, Any] = {
        "run_id": run_id, "date": datetime.now(UTC).isoformat(timespec="seconds"), "perjoule": __version__, "partial": True,
        "setting": setting, "load": load_of(task.plan), "planned": len(planned.rows), "workload": _said(task.workload), **task.asked}
    _write(folder / ASKED, run)
    view.planned(planned, len(done))
    with (folder / SAMPLES).open("ab") as samples, (folder / OBSERVATIONS).open("a+b") as observations:
        watch = Watch(operator, drive, observations, view)
        await watch.begin()
        stopping = asyncio.create_task(_stop(stopped, drive))
        view.phase("running")
        looking = asyncio.create_task(watch.run())
        try:
            async for sample in drive:
                samples.write(line(sample))
                view.ended(sample)
        finally:
            looking.cancel()
            stopping.cancel()
            await asyncio.gather(looking, stopping, return_exceptions=True)
        view.phase("settling")
        samples.flush()
        await watch.end()
    view.phase("records")
    await _keep_records(folder, operator, run, drive.start_unix_ns)
    run["partial"] = stopped.is_set()
    if task.plan.mode == "closed" and task.plan.duration_s is not None:
        run["planned"] = len(read_run(folder).samples)  # what there was time for
    _write(folder / ASKED, run)
    view.phase("measuring")
    return await asyncio.to_thread(measured, folder)


def measured(folder: Path) -> dict[str, Any]:
    """The result and the page of a folder, made from what else is in it."""
    result = result_of(read_run(folder))
    _write(folder / RESULT, result)
    (folder / PAGE).write_text(page([result]), encoding="utf-8")
    return result


class Watch:
    """Looks at the joules, the boards and the client now and then, and first and last when no request is open."""

    def __init__(self, operator: Operator, drive: Drive, file: IO[bytes], view: View) -> None:
        self._operator, self._drive, self._file, self._view = operator, drive, file, view
        self._first: tuple[int, Observation] | None = None  # before the start, to which times are counted, is known

    async def begin(self) -> None:
        """Before anything is sent."""
        look = Observation(0, 0, await self._operator.settled(), await self._operator.boards(), 0)
        look.unix_ns = time.time_ns()
        self._first = time.monotonic_ns(), look

    async def run(self) -> None:
        """For ever, while requests run."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._drive.start_ns:
                await self._look(await self._operator.balance())

    async def end(self) -> None:
        """When every request has its record."""
        await self._look(await self._operator.settled())

    async def _look(self, balance: dict[str, Any] | None) -> None:
        t_ns, unix_ns = time.monotonic_ns() - self._drive.start_ns, time.time_ns()
        if self._first is not None:
            before_ns, first = self._first
            self._first, first.t_ns = None, before_ns - self._drive.start_ns
            self._forget(first.t_ns)
            self._file.write(line(first))
        look = Observation(t_ns, unix_ns, balance, await self._operator.boards() if self._operator.reached else [], self._drive.in_flight,
                           self._drive.take_loop_lags())
        self._file.write(line(look))
        self._view.looked(t_ns, look)


    def _forget(self, since_ns: int) -> None:
        """A run that goes on does so at its schedule's time: what was seen after that while it broke off is not of this time."""
        self._file.seek(0)
        kept = [seen for seen in self._file if orjson.loads(seen)["t_ns"] < since_ns]
        self._file.truncate(0)
        self._file.writelines(kept)


def _prepared(folder: Path, planned: Schedule, *, resume: bool) -> tuple[dict[int, Sample], str]:
    """The folder made ready: what has been done before, and the run's id."""
    folder.mkdir(parents=True, exist_ok=True)
    if not resume or not (folder / SCHEDULE).exists():
        for name in (SAMPLES, RECORDS, OBSERVATIONS, RESULT, PAGE):
            (folder / name).unlink(missing_ok=True)
        planned.write(folder / SCHEDULE)
        return {}, record_id()
    if read_schedule(folder / SCHEDULE).sha256 != planned.sha256:
        raise ResumeError(f"{folder / SCHEDULE}: got the schedule of another run, expected that of these flags; leave --resume out, or see"
                          f" {folder / ASKED} for the flags it had")
    try:
        before = read_run(folder)
    except ValueError:  # it broke off before its first answer
        return {}, record_id()
    return {sample.index: sample for sample in before.samples if sample.outcome != "unfinished"}, str(before.asked["run_id"])


def _goes_on_at(planned: Schedule, done: Mapping[int, Sample]) -> int | None:
    """Where in the run's time a closed loop goes on; others go by their schedule."""
    if not done or planned.plan.mode != "closed":
        return None
    return max(sample.end_ns or sample.sent_ns for sample in done.values())


async def _keep_records(folder: Path, operator: Operator, run: dict[str, Any], start_unix_ns: int) -> None:
    seen = read_run(folder)
    wanted = {sample.request_id: sample.record_id for sample in seen.samples if sample.record_id is not None}
    begun_ns = min((look.unix_ns for look in seen.observations), default=start_unix_ns)
    records = await operator.records(begun_ns, wanted)
    (folder / RECORDS).write_bytes(b"".join(map(line, records)))
    calibrations = {record["calibration_id"] for record in records if record.get("calibration_id")}
    run["setting"]["calibration_id"] = ", ".join(sorted(calibrations)) or None
    for name in ("method", "status", "source", "boundary"):
        found: Sequence[Any] = sorted({record[name] for record in records if record.get(name)})
        key = name if name == "boundary" else f"energy_{name}"
        if len(found) == 1 and run["setting"].get(key) is None:
            run["setting"][key] = found[0]


async def _stop(stopped: asyncio.Event, drive: Drive) -> None:
    await stopped.wait()
    drive.stop()


def _said(workload: Workload) -> dict[str, Any]:
    return {"name": workload.name, "source": workload.source, "sha256": workload.sha256, "read": workload.read,
            "kept": len(workload.turns), "dropped": dict(workload.dropped), "notes": list(workload.notes)}


def _write(path: Path, found: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    fresh.replace(path)
