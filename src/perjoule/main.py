"""The command `perjoule`, and the composition root: the only module that knows every adapter."""

import argparse
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any

from perjoule import __version__
from perjoule.sidecar.settings import sources
from perjoule.sidecar.settings.config import Config, ConfigError

USAGE_ERROR = 2
OF_THIS_HOST = ("nvml", "zeus")  # sources of energy
INTERRUPTED = 130  # what a shell answers for a program ended by Ctrl-C
NOBODY_READS = 141  # and for one whose reader left, as `head` does
PROGRAMS = {"demo": "perjoule.bench.demo:run", "meter": "perjoule.meter:run", "probe": "perjoule.bench.probe:run",
            "accuracy": "perjoule.bench.attribution:run",
            "calibration": "perjoule.bench.calibrations:run", "bench relay": "perjoule.bench.relay:run",
            "bench diffusion": "perjoule.bench.diffusion:run",
            "bench soak": "perjoule.bench.soak:run", "bench ordeal": "perjoule.bench.ordeal.command:run",
            "replay": "perjoule.bench.replay:run", "compare": "perjoule.bench.compare:run",
            "leaderboard": "perjoule.bench.leaderboard:run", "estimate": "perjoule.bench.estimate:run",
            "ledger": "perjoule.bench.ledger:run"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; answers the exit code (2: it was asked for something that cannot be done)."""
    args = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="perjoule", description="What each inference request cost in joules.")
    parser.add_argument("--version", action="version", version=f"perjoule {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser("serve", help="stand in front of an inference server and meter its requests")
    sources.add_flags(serve)
    commands.add_parser("demo", help="see it work: an embedded engine, the sidecar, a few dozen requests", add_help=False)
    commands.add_parser("meter", help="tell sidecars in other containers what this host's counter shows", add_help=False)
    commands.add_parser("probe", help="can the joules of this machine be trusted?", add_help=False)
    commands.add_parser("accuracy", help="how far are the shares from measured Shapley values?", add_help=False)
    commands.add_parser("calibration", help="what has been learned of what steps and tokens cost", add_help=False)
    commands.add_parser("replay", help="a real trace through the sidecar: what each request took and cost", add_help=False)
    commands.add_parser("compare", help="did the joules of two runs change?", add_help=False)
    commands.add_parser("leaderboard", help="results as a table, one page, or ML.ENERGY's folders", add_help=False)
    commands.add_parser("estimate", help="what would a workload cost?", add_help=False)
    commands.add_parser("ledger", help="what the records add up to, and whether all of them are there", add_help=False)
    bench = commands.add_parser("bench", help="what does the sidecar cost beside other relays?")
    bench.add_argument("what", choices=("relay", "diffusion", "soak", "ordeal"))
    key = commands.add_parser("key", help="make an API key for --keys: the key to standard output, its entry to standard error")
    key.add_argument("name", metavar="NAME", help="who gets it: the `tenant` of the records")
    for name, place in PROGRAMS.items():
        words = name.split()
        if args[:len(words)] == words:
            try:
                program: Callable[[Sequence[str]], int] = resolve_name(place)
                code = program(args[len(words):])
                sys.stdout.flush()
                return code
            except KeyboardInterrupt:
                return INTERRUPTED
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter says it at its end
                return NOBODY_READS
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
    from perjoule.adapters.energy import Opened, open_counter
    from perjoule.adapters.remote import Access
    from perjoule.sidecar.ports import AbsentError, UnavailableError
    from perjoule.sinks import apart, open_ledger, open_telemetry

    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("zeus").setLevel(logging.ERROR)  # what it did not find is said by us, in our words
    running: list[Any] = []

    def open_source() -> Opened:
        return open_counter(config.energy, config.gpus, lambda: running[0].meter.in_flight if running else 0,
                            Access(credentials.energy_token, config.energy_tls_ca))

    awaited: Callable[[], Any] | None = None
    try:
        opened = open_source()
    except AbsentError:  # why, is said by who waits for it
        opened, awaited = Opened(None), lambda: open_source().counter
    except (UnavailableError, ValueError) as error:
        return _refuse(f"perjoule serve: {error}")
    try:
        ledger = open_ledger(config)
        spans, push = open_telemetry(config)
        calibrations = _calibrations(config)
        events, errands = _events(config, credentials, ledger), _errands(config, credentials, ledger)
    except ConfigError as error:
        return _refuse(f"perjoule serve: {error}")
    sinks = [*(apart(sink, config) for sink in (ledger, spans) if sink is not None), *([events] if events is not None else [])]
    import uvloop

    def make(**more: Any) -> Any:
        from perjoule.adapters.prometheus import render
        from perjoule.sidecar.process.service import Service

        service = Service(config, counter=opened.counter, sinks=sinks, ledger=ledger, awaited=awaited, host_of=_host,
                          calibrations=calibrations, render=render, push=push,
                          tracing=spans is not None, credentials=credentials, reread=reread, **more)
        running.append(service)
        return service

    for errand in errands:
        errand.start()
    return uvloop.run(_run(config, opened, make))


async def _run(config: Config, opened: Any, make: Callable[..., Any]) -> int:
    from perjoule.adapters.engines import questions
    from perjoule.sidecar.process.lookout import Questions
    from perjoule.sidecar.process.service import logger

    def asking(question: Callable[..., Any]) -> Callable[[str], Any]:
        def ask(url: str) -> Any:
            found = service.presence.found if service.presence.answers.is_set() else None  # one that was away may come back as another
            return question(url, service.upstream_tls, service.credentials.doors.upstream_key, "" if found is None else found.name)

        return ask  # a reload may replace TLS and the key

    ask = Questions(asking(questions.largest_batch), asking(questions.load), getattr(opened.counter, "computing", None),
                    getattr(opened.counter, "conditions", None))  # NVML alone has them
    service = make(recognise=asking(questions.recognise), ask=ask)

    def announce(where: dict[str, Any]) -> None:
        for source, reason in opened.tried:
            logger.info("energy source %s does not work here: %s", source, reason)
        if opened.counter is None and service.source.failing:
            logger.info("energy from %s, once it is there", config.energy)
        elif opened.counter is None:
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


def _events(config: Config, credentials: Any, ledger: Any) -> Any:
    """Where CloudEvents go, fed from the ledger if there is one; None where nobody wants them. Raises ConfigError."""
    if not config.events:
        return None
    from perjoule.adapters.cloudevents import CloudEvents

    try:
        sink = CloudEvents(config.events, credentials.events_token)
        if ledger is None:
            logging.getLogger("perjoule").warning("--events without a ledger: events wait in memory, and do not survive a restart")
            return sink
        from perjoule.adapters.ledger.cursors import Cursor
        from perjoule.sidecar.records.feed import FromLedger

        return FromLedger(sink, Cursor(ledger.database, f"events {config.events.partition('?')[0]}", secrets.token_hex(16)))
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from error


def _errands(config: Config, credentials: Any, ledger: Any) -> list[Any]:
    """What is done beside the traffic: fetching the grid's carbon intensity. Raises ConfigError."""
    if not config.grid:
        return []
    from perjoule.adapters.grid import EVERY_S, open_grid
    from perjoule.adapters.ledger import intensities
    from perjoule.sidecar.process.errand import Errand
    from perjoule.sidecar.units import NS_PER_S

    if ledger is None:
        raise ConfigError("--grid: there is no ledger to keep the carbon intensity in, expected --ledger FILE")
    try:
        source = open_grid(config.grid, credentials.grid_token)
    except ValueError as error:
        raise ConfigError(str(error)) from error

    def fetch() -> None:
        now_unix_ns = time.time_ns()
        intensities.keep(ledger.database, source.fetch(now_unix_ns - source.back_s * NS_PER_S, now_unix_ns), now_unix_ns)

    return [Errand("carbon intensity of the grid", fetch, EVERY_S)]


def _host(counter: Any) -> Callable[[], int] | None:
    """What the host draws beside its boards, None where nothing tells. Only boards read here have this host beside them: another source may
    be far away, count the host itself, or be nobody's joules."""
    from perjoule.adapters.rapl import HostCounter

    if counter.name not in OF_THIS_HOST:
        return None
    try:
        return HostCounter().read_uj
    except OSError as error:
        logging.getLogger("perjoule").debug("what the host draws is not known: %s", error)
        return None


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


def _refuse(text: str) -> int:
    print(text, file=sys.stderr)  # noqa: T201
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
