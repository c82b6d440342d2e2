"""The command `perjoule`, and the composition root: the only module that knows every adapter."""

import argparse
import json
import logging
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from perjoule import __version__
from perjoule.sidecar.settings import sources
from perjoule.sidecar.settings.config import Config, ConfigError

USAGE_ERROR = 2
INTERRUPTED = 130  # what a shell answers for a program ended by Ctrl-C
NOT_BUILT = ("ledger", "meter")
PROGRAMS = {"demo": "perjoule.bench.demo:run", "probe": "perjoule.bench.probe:run", "accuracy": "perjoule.bench.attribution:run",
            "calibration": "perjoule.bench.calibrations:run", "bench relay": "perjoule.bench.relay:run",
            "bench soak": "perjoule.bench.soak:run", "replay": "perjoule.bench.replay:run", "compare": "perjoule.bench.compare:run",
            "leaderboard": "perjoule.bench.leaderboard:run", "estimate": "perjoule.bench.estimate:run"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; answers the exit code (2: it was asked for something that cannot be done)."""
    args = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="perjoule", description="What each inference request cost in joules.")
    parser.add_argument("--version", action="version", version=f"perjoule {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser("serve", help="stand in front of an inference server and meter its requests")
    sources.add_flags(serve)
    commands.add_parser("demo", help="see it work: an embedded engine, the sidecar, a few dozen requests", add_help=False)
    commands.add_parser("probe", help="can the joules of this machine be trusted?", add_help=False)
    commands.add_parser("accuracy", help="how far are the shares from measured Shapley values?", add_help=False)
    commands.add_parser("calibration", help="what has been learned of what steps and tokens cost", add_help=False)
    commands.add_parser("replay", help="a real trace through the sidecar: what each request took and cost", add_help=False)
    commands.add_parser("compare", help="did the joules of two runs change?", add_help=False)
    commands.add_parser("leaderboard", help="results as a table, one page, or ML.ENERGY's folders", add_help=False)
    commands.add_parser("estimate", help="what would a workload cost?", add_help=False)
    bench = commands.add_parser("bench", help="what does the sidecar cost beside other relays?")
    bench.add_argument("what", choices=("relay", "soak"))
    key = commands.add_parser("key", help="make an API key for --keys: the key to standard output, its entry to standard error")
    key.add_argument("name", metavar="NAME", help="who gets it: the `tenant` of the records")
    if args and args[0] in NOT_BUILT:
        return _refuse(f"perjoule {args[0]}: not built yet")
    for name, place in PROGRAMS.items():
        words = name.split()
        if args[:len(words)] == words:
            try:
                program: Callable[[Sequence[str]], int] = resolve_name(place)
                return program(args[len(words):])
            except KeyboardInterrupt:
                return INTERRUPTED
    flags = vars(parser.parse_args(args))
    if flags["command"] == "key":
        return _make_key(flags["name"])
    def read() -> tuple[Config, Any]:
        """All settings, and the secrets that they name."""
        from perjoule.sidecar.settings import credentials

        config = sources.load(flags, os.environ)
        return config, credentials.load(config, os.environ)

    try:
        config, credentials = read()
    except ConfigError as error:
        return _refuse(f"perjoule serve: {error}")
    return _serve(config, credentials, read)


def _make_key(name: str) -> int:
    """Print a fresh key, which is kept nowhere, and apart from it what lets it in."""
    from perjoule.sidecar.access.keys import entry_for

    key = "pj-" + secrets.token_urlsafe(32)
    try:
        entry = entry_for(name, key)
    except ValueError as error:
        return _refuse(f"perjoule key: {error}")
    print(key)  # noqa: T201
    print(f"\n{entry}", end="", file=sys.stderr)  # noqa: T201
    return 0


def _serve(config: Config, credentials: Any, reread: Callable[[], Any]) -> int:
    from perjoule.adapters.energy import NotBuiltError, Opened, open_counter
    from perjoule.sidecar.ports import UnavailableError

    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("zeus").setLevel(logging.ERROR)  # what it did not find is said by us, in our words
    running: list[Any] = []
    try:
        opened: Opened = open_counter(config.energy, config.gpus, lambda: running[0].meter.in_flight if running else 0)
    except (NotBuiltError, UnavailableError, ValueError) as error:
        return _refuse(f"perjoule serve: {error}")
    try:
        sinks, ledger = _sinks(config)
        calibrations = _calibrations(config)
    except ConfigError as error:
        return _refuse(f"perjoule serve: {error}")
    import uvloop

    def make(**more: Any) -> Any:
        from perjoule.sidecar.process.service import Service

        service = Service(config, counter=opened.counter, sinks=sinks, ledger=ledger, calibrations=calibrations, metrics=_metrics,
                          tracing=bool(config.otlp), credentials=credentials, reread=reread, **more)
        running.append(service)
        return service

    return uvloop.run(_run(config, opened, make))


async def _run(config: Config, opened: Any, make: Callable[..., Any]) -> int:
    from perjoule.adapters import engine
    from perjoule.sidecar.process.lookout import Questions
    from perjoule.sidecar.process.service import logger

    def asking(question: Callable[..., Any]) -> Callable[[str], Any]:
        return lambda url: question(url, service.upstream_tls, service.credentials.doors.upstream_key)  # a reload may replace both

    ask = Questions(asking(engine.largest_batch), asking(engine.queue), getattr(opened.counter, "computing", None),
                    getattr(opened.counter, "conditions", None))  # NVML alone has them
    service = make(recognise=asking(engine.recognise), ask=ask)

    def announce(where: dict[str, Any]) -> None:
        for source, reason in opened.tried:
            logger.info("energy source %s does not work here: %s", source, reason)
        if opened.counter is None:
            logger.warning("no energy source: requests are served, X-Energy-Status is `unavailable`, no joules are shown")
            if service.limits.in_joules:
                logger.warning("--keys: limits in joules hold nobody back, since there are no joules to count")
        else:
            boards = ", ".join(f"{d.name} {d.uuid}" for d in opened.counter.devices)
            logger.info("energy from %s (%s): %s", opened.counter.name, opened.counter.status, boards)
        if config.upstream_tls_insecure:
            logger.warning("--upstream-tls-insecure: whoever answers at %s is believed to be the engine", config.upstream)
        logger.info("perjoule %s: %s -> %s, operator's port %s", __version__, where["listen"], config.upstream, where["admin"])
        print(json.dumps(where), flush=True)  # noqa: T201  for whoever started us: the ports, once they can be used

    try:
        await service.run(announce)
    except OSError as error:
        return _refuse(f"perjoule serve: {error.strerror or error}")
    return 0


def _sinks(config: Config) -> tuple[list[Any], Any]:
    """Where records go: the ledger unless it is off, spans if there is an endpoint. Late imports: nobody pays for what is off.
    Raises ConfigError."""
    sinks: list[Any] = []
    ledger = None
    if config.ledger != "off":
        from perjoule.adapters.sqlite import LedgerError, SqliteLedger

        try:
            path = sources.state_folder() / "ledger.sqlite3" if config.ledger == "auto" else Path(config.ledger)
            ledger = SqliteLedger(path, config.ledger_days, config.ledger_mb)
            sinks.append(ledger)
        except (LedgerError, ConfigError) as error:
            if config.ledger != "auto":
                raise ConfigError(str(error)) from error
            logging.getLogger("perjoule").warning("no ledger, records are not kept: %s", error)  # a read-only root, say
    if config.otlp:
        from perjoule.adapters.otel import OtelSpans

        try:
            sinks.append(OtelSpans(config.otlp))
        except (ImportError, ValueError) as error:
            raise ConfigError(str(error)) from error
    return sinks, ledger


def _calibrations(config: Config) -> Any:
    """Where calibrations are kept, None for nowhere. Raises ConfigError."""
    from perjoule.adapters.calibrations import CalibrationFolder

    if config.calibrations == "off":
        return None
    try:
        folder = sources.calibrations_folder(config.calibrations)
        folder.mkdir(parents=True, exist_ok=True)
        return CalibrationFolder(folder)
    except (OSError, ConfigError) as error:
        if config.calibrations != "auto":
            raise ConfigError(f"--calibrations: {error}") from error
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
        telemetry.OUTBOX_PENDING: lambda: {(box.name,): box.pending for box in service.archive.outboxes},
        telemetry.OUTBOX_STORED: lambda: {(box.name,): box.stored for box in service.archive.outboxes},
        telemetry.OUTBOX_DROPPED: lambda: {(box.name,): box.dropped for box in service.archive.outboxes},
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
