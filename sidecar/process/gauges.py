"""What a running service shows beside the sums of its records: the balance, the boards, the outboxes, and what program it is."""

import os
from platform import python_version
from typing import Any

from perjoule import __version__
from perjoule.sidecar import telemetry
from perjoule.sidecar.records.tally import Shown
from perjoule.sidecar.units import joules


def gauges(service: Any) -> Shown:
    """All of it at this moment: the joules are of one moment, and without an energy source there are none. On the event loop."""
    boxes = service.archive.outboxes
    shown: Shown = {
        telemetry.IN_FLIGHT: {(): service.meter.in_flight},
        telemetry.UNKNOWN_REQUESTS: {} if service.lookout.strangers.seen is None else {(): service.lookout.strangers.seen},
        telemetry.METERING_FAILURES: {(): service.desk.failures},
        telemetry.OUTBOX_PENDING: {(box.name,): box.pending for box in boxes},
        telemetry.OUTBOX_STORED: {(box.name,): box.stored for box in boxes},
        telemetry.OUTBOX_DROPPED: {(box.name,): box.dropped for box in boxes},
        telemetry.READY: {(): int(service.ready()[0])},
        telemetry.ENERGY_FAILING: {(): int(service.source.failing)},
        telemetry.BUILD_INFO: {(__version__, python_version()): 1},
        telemetry.TARGET_INFO: {(os.environ.get("OTEL_SERVICE_NAME") or telemetry.SCOPE, __version__, service.instance_id): 1}}
    if service.config.steps:
        shown[telemetry.ENGINE_STEPS] = {(): service.engine_steps.told}
        shown[telemetry.ENGINE_STEPS_IGNORED] = {(): service.engine_steps.ignored}
        shown[telemetry.ENGINE_STEPS_BELIEVED] = {(): int(service.meter.believes)}
    if service.push is not None:
        shown[telemetry.METRIC_EXPORTS] = {("sent",): service.push.sent, ("failed",): service.push.failed}
    return shown | _energy(service) if service.counter is not None else shown


def _energy(service: Any) -> Shown:
    kind, power, balance, meter = (service.counter.name, service.counter.status), service.power_w(), service.meter.balance, service.meter
    return {
        telemetry.MEASURED_JOULES: {kind: joules(balance.measured_uj)},
        telemetry.REQUESTS_JOULES: {kind: joules(balance.requests_uj)},
        telemetry.IDLE_JOULES: {kind: joules(balance.idle_uj)},
        telemetry.UNATTRIBUTED_JOULES: {kind: joules(balance.unattributed_uj)},
        telemetry.SETTLED_JOULES: {kind: joules(service.settled_uj)},
        telemetry.POWER_WATTS: {} if power is None else {kind: power},
        telemetry.BOARD_JOULES: {(uuid, *kind): joules(uj) for uuid, uj in meter.boards_uj.items()},
        telemetry.BOARD_WATTS: {(uuid, *kind): watts for uuid, watts in meter.boards_w.items() if None not in (power, watts)},
        telemetry.BOARD_PROCESSES: {(uuid,): count for uuid, count in service.lookout.computing.items()},
        telemetry.SAMPLER_READS: {(): service.source.sampler.reads},
        telemetry.SAMPLER_ERRORS: {(): service.source.sampler.errors}}
