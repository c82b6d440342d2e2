"""Where records go, as the settings say: ledger and spans, each in a process of its own where workers share a meter (decision 0009).

Run as a program it is such a process: the meter's starts it, and it ends with that.
"""

import logging
import os
import signal
import socket
import sys
from dataclasses import asdict
from typing import Any

from perjoule.sidecar.ports import RecordSink
from perjoule.sidecar.process import interpreter
from perjoule.sidecar.process.apart import Apart, store
from perjoule.sidecar.settings import sources
from perjoule.sidecar.settings.config import Config, ConfigError

LEDGER, SPANS = "ledger", "otlp"


def open_ledger(config: Config) -> Any:
    """The ledger, None if it is off, or cannot be had where nobody has asked for it. Raises ConfigError."""
    if config.ledger == "off":
        return None
    from perjoule.adapters.ledger.store import Ledger, LedgerError, Retention  # late: nobody pays for what is off

    try:
        where = str(sources.state_folder() / "ledger.sqlite3") if config.ledger == "auto" else config.ledger
        return Ledger(where, Retention(config.ledger_days, config.ledger_mb, config.ledger_minute_days, config.ledger_hour_days))
    except (LedgerError, ConfigError) as error:
        if config.ledger != "auto":
            raise ConfigError(str(error)) from error
        logging.getLogger("perjoule").warning("no ledger, records are not kept: %s", error)  # a read-only root, say
        return None


def open_telemetry(config: Config) -> tuple[Any, Any]:
    """The ways of spans and of metrics over OTLP, None for what nobody asks for. Raises ConfigError."""
    if not config.otlp and not any(name.startswith("OTEL_") for name in os.environ):
        return None, None  # without a look at what the variables would say
    from perjoule.adapters.otel.metrics import open_metrics
    from perjoule.adapters.otel.spans import open_spans

    try:
        spans, push = open_spans(config.otlp), open_metrics(config.otlp)
        if config.otlp and spans is None:
            logging.getLogger("perjoule").warning("--otlp: no spans are sent, since OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER says so")
        return spans, push
    except (ImportError, ValueError) as error:
        raise ConfigError(str(error)) from error


def apart(sink: RecordSink, config: Config) -> RecordSink:
    """A sink that has been opened here, as the outbox gets it: one worker shares its process with it, of several the meter does not."""
    if config.workers == 1:
        return sink
    if sink.name == SPANS:
        sink.close()  # the ledger stays open, for questions
    return Apart(sink.name, [sys.executable, "-m", "perjoule.sinks", sink.name], asdict(config))


def main(name: str, wire: str) -> None:
    """Store what comes over the open file `wire`, until it is closed. Signals are minded by whoever is at its other end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def opened(settings: dict[str, Any]) -> RecordSink:
        config = Config(**settings)
        logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
        sink: RecordSink | None = open_ledger(config) if name == LEDGER else _spans(config)
        if sink is None:
            raise ConfigError("it was there when the sidecar started, and is not any more")
        interpreter.settle()
        return sink

    store(socket.socket(fileno=int(wire)), opened)


def _spans(config: Config) -> Any:
    from perjoule.adapters.otel.spans import open_spans

    return open_spans(config.otlp)


if __name__ == "__main__":
    main(*sys.argv[1:])
