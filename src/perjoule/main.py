"""The command `perjoule`, and the composition root: the only module that knows every adapter."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from perjoule import __version__
from perjoule.sidecar import config as settings

USAGE_ERROR = 2
INTERRUPTED = 130  # what a shell answers for a program ended by Ctrl-C
NOT_BUILT = ("replay", "compare", "ledger", "estimate", "bench", "meter")
PROGRAMS = {"demo": "perjoule.bench.demo:run", "probe": "perjoule.bench.probe:run", "accuracy": "perjoule.bench.attribution:run",
            "calibration": "perjoule.bench.calibrations:run"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; answers the exit code (2: it was asked for something that cannot be done)."""
    args = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="perjoule", description="What each inference request cost in joules.")
    parser.add_argument("--version", action="version", version=f"perjoule {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser("serve", help="stand in front of an inference server and meter its requests")
    settings.add_flags(serve)
    commands.add_parser("demo", help="see it work: an embedded engine, the sidecar, a few dozen requests", add_help=False)
    commands.add_parser("probe", help="can the joules of this machine be trusted?", add_help=False)
    commands.add_parser("accuracy", help="how far are the shares from measured Shapley values?", add_help=False)
    commands.add_parser("calibration", help="what has been learned of what steps and tokens cost", add_help=False)
    if args and args[0] in NOT_BUILT:
        return _refuse(f"perjoule {args[0]}: not built yet")
    if args and args[0] in PROGRAMS:
        try:
            program: Callable[[Sequence[str]], int] = resolve_name(PROGRAMS[args[0]])
            return program(args[1:])
        except KeyboardInterrupt:
            return INTERRUPTED
    flags = vars(parser.parse_args(args))
    try:
        config = settings.load(flags, os.environ)
    except settings.ConfigError as error:
        return _refuse(f"perjoule serve: {error}")
    return _serve(config)


def _serve(config: settings.Config) -> int:
    from perjoule.adapters.energy import NotBuiltError, Opened, open_counter
    from perjoule.sidecar.ports import UnavailableError

    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("zeus").setLevel(logging.ERROR)  # what it did not find is said by us, in our words
    if config.workers != 1:
        return _refuse(f"perjoule serve: not built yet: --workers {config.workers} (expected 1)")
    running: list[Any] = []
    try:
        opened: Opened = open_counter(config.energy, config.gpus, lambda: running[0].meter.in_flight if running else 0)
    except (NotBuiltError, UnavailableError, ValueError) as error:
        return _refuse(f"perjoule serve: {error}")
    try:
        sinks, ledger = _sinks(config)
        calibrations = _calibrations(config)
    except settings.ConfigError as error:
        return _refuse(f"perjoule serve: {error}")
    import uvloop

    return uvloop.run(_run(config, opened, sinks, ledger, calibrations, running))


async def _run(config: settings.Config, opened: Any, sinks: list[Any], ledger: Any, calibrations: Any, running: list[Any]) -> int:
    from perjoule.adapters.engine import recognise
    from perjoule.adapters.engine_limits import largest_batch, queue
    from perjoule.sidecar.lookout import Questions
    from perjoule.sidecar.service import Service, logger

    ask = Questions(largest_batch, queue, getattr(opened.counter, "computing", None))  # NVML alone knows of other processes
    service = Service(config, counter=opened.counter, sinks=sinks, ledger=ledger, calibrations=calibrations, recognise=recognise,
                      ask=ask, metrics=_metrics, tracing=bool(config.otlp))
    running.append(service)

    def announce(where: dict[str, Any]) -> None:
        for source, reason in opened.tried:
            logger.info("energy source %s does not work here: %s", source, reason)
        if opened.counter is None:
            logger.warning("no energy source: requests are served, X-Energy-Status is `unavailable`, no joules are shown")
        else:
            boards = ", ".join(f"{d.name} {d.uuid}" for d in opened.counter.devices)
            logger.info("energy from %s (%s): %s", opened.counter.name, opened.counter.status, boards)
        logger.info("perjoule %s: %s -> %s, operator's port %s", __version__, where["listen"], config.upstream, where["admin"])
        print(json.dumps(where), flush=True)  # noqa: T201  for whoever started us: the ports, once they can be used

    try:
        await service.run(announce)
    except OSError as error:
        return _refuse(f"perjoule serve: {error.strerror or error}")
    return 0


def _sinks(config: settings.Config) -> tuple[list[Any], Any]:
    """Where records go: the ledger unless it is off, spans if there is an endpoint. Late imports: nobody pays for what is off.
    Raises ConfigError."""
    sinks: list[Any] = []
    ledger = None
    if config.ledger != "off":
        from perjoule.adapters.sqlite import LedgerError, SqliteLedger

        try:
            path = settings.state_folder() / "ledger.sqlite3" if config.ledger == "auto" else Path(config.ledger)
            ledger = SqliteLedger(path, config.ledger_days, config.ledger_mb)
            sinks.append(ledger)
        except (LedgerError, settings.ConfigError) as error:
            if config.ledger != "auto":
                raise settings.ConfigError(str(error)) from error
            logging.getLogger("perjoule").warning("no ledger, records are not kept: %s", error)  # a read-only root, say
    if config.otlp:
        from perjoule.adapters.otel import OtelSpans

        try:
            sinks.append(OtelSpans(config.otlp))
        except (ImportError, ValueError) as error:
            raise settings.ConfigError(str(error)) from error
    return sinks, ledger


def _calibrations(config: settings.Config) -> Any:
    """Where calibrations are kept, None for nowhere. Raises ConfigError."""
    from perjoule.adapters.calibrations import CalibrationFolder

    if config.calibrations == "off":
        return None
    try:
        folder = settings.calibrations_folder(config.calibrations)
        folder.mkdir(parents=True, exist_ok=True)
        return CalibrationFolder(folder)
    except (OSError, settings.ConfigError) as error:
        if config.calibrations != "auto":
            raise settings.ConfigError(f"--calibrations: {error}") from error
        logging.getLogger("perjoule").warning("calibrations are not kept: %s", error)
        return None


def _metrics(service: Any) -> Any:
    """The Prometheus view of a service."""
    from perjoule.adapters.prometheus import PrometheusMetrics
    from perjoule.sidecar import telemetry

    counter, sampler = service.counter, service.sampler
    reads: dict[Any, Any] = {
        telemetry.IN_FLIGHT: lambda: {(): service.meter.in_flight},
        telemetry.METERING_FAILURES: lambda: {(): service.desk.failures},
        telemetry.OUTBOX_PENDING: lambda: {(box.name,): box.pending for box in service.outboxes},
        telemetry.OUTBOX_STORED: lambda: {(box.name,): box.stored for box in service.outboxes},
        telemetry.OUTBOX_DROPPED: lambda: {(box.name,): box.dropped for box in service.outboxes},
    }
    if counter is not None:
        provenance = (counter.name, counter.status)
        reads[telemetry.POWER_WATTS] = lambda: {} if (power := service.power_w()) is None else {provenance: power}
        reads[telemetry.BOARD_PROCESSES] = lambda: {(uuid,): count for uuid, count in service.lookout.computing.items()}
        reads[telemetry.SAMPLER_READS] = lambda: {(): sampler.reads}
        reads[telemetry.SAMPLER_ERRORS] = lambda: {(): sampler.errors}
    if counter is None:
        return PrometheusMetrics(reads=reads)
    return PrometheusMetrics(balance=lambda: service.meter.balance, source=counter.name, status=counter.status, reads=reads)


def _refuse(text: str) -> int:
    print(text, file=sys.stderr)  # noqa: T201
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
