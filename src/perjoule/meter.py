"""`perjoule meter`: tells sidecars in other containers what this host's energy counter shows, so that they need no device of their own."""

import argparse
import asyncio
import json
import logging
import os
import re
import sys
from collections.abc import Sequence

from perjoule import __version__
from perjoule.adapters.energy import EXPECTED, open_counter
from perjoule.adapters.remote import Access
from perjoule.sidecar.http import tls
from perjoule.sidecar.http.addresses import Address, Unix, read_address
from perjoule.sidecar.http.sockets import listening_socket
from perjoule.sidecar.ports import EnergyCounter, UnavailableError
from perjoule.sidecar.process.publisher import Publisher
from perjoule.sidecar.settings.config import ConfigError
from perjoule.sidecar.settings.credentials import energy_token, is_of_this_host
from perjoule.sidecar.units import NS_PER_MS

USAGE_ERROR = 2

logger = logging.getLogger("perjoule")


def run(argv: Sequence[str]) -> int:
    """The command. It ends on SIGTERM or SIGINT with 0; 2: what it was asked for cannot be done."""
    flags = _parser().parse_args(argv)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("zeus").setLevel(logging.ERROR)
    try:
        address = _address(flags.listen)
        context = tls.server_context(flags.tls_cert, flags.tls_key, "")
        token = energy_token(flags.energy_token_file, os.environ)
        if token is None and not is_of_this_host(address):
            raise ConfigError(f"--listen: got {flags.listen}, which others can reach, expected a unix socket, a loopback address or a "
                              "token for it (--energy-token-file or PERJOULE_ENERGY_TOKEN)")
        if not re.fullmatch("0?[0-7]{3}", flags.socket_mode):
            raise ConfigError(f"--socket-mode: got {flags.socket_mode!r}, expected octal permissions, e.g. 660")
        if not 1 <= flags.poll_ms <= 1000:
            raise ConfigError(f"--poll-ms: got {flags.poll_ms}, expected 1 to 1000")
        counter = _opened(flags.energy, flags.gpus, Access(token, flags.energy_tls_ca))
    except (ValueError, UnavailableError) as error:
        return _refuse(str(error))
    try:
        listening = listening_socket(address, mode=int(flags.socket_mode, 8))
    except OSError as error:
        counter.close()
        return _refuse(error.strerror or str(error))

    def announce() -> None:
        where = listening.getsockname()
        told = f"unix:{where}" if isinstance(address, Unix) else f"{f'[{where[0]}]' if ':' in where[0] else where[0]}:{where[1]}"
        boards = ", ".join(f"{device.name} {device.uuid}" for device in counter.devices)
        logger.info("perjoule meter %s on %s: %s (%s): %s", __version__, told, counter.name, counter.status, boards)
        print(json.dumps({"listen": told, "energy": counter.name, "pid": os.getpid()}), flush=True)  # noqa: T201  for whoever started us

    try:
        asyncio.run(Publisher(counter, flags.poll_ms * NS_PER_MS, token).run(listening, context, announce))
    finally:
        counter.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("perjoule meter", description="Tells sidecars in other containers what this host's energy counter "
                                     "shows: they are started with --energy meter:HOST:PORT or meter:unix:PATH.")
    for flag, default, metavar, text in (
            ("--listen", "127.0.0.1:9465", "HOST:PORT|unix:PATH", "where sidecars connect"),
            ("--energy", "auto", "SOURCE", EXPECTED),
            ("--gpus", "all", "all|UUID,…", "the boards to read"),
            ("--energy-token-file", "", "FILE", "file with the token that sidecars must have, and that a source elsewhere is asked with"),
            ("--energy-tls-ca", "", "FILE", "authorities (PEM) by which a source elsewhere is known"),
            ("--socket-mode", "660", "MODE", "permissions of the unix socket, in octal"),
            ("--tls-cert", "", "FILE", "certificate chain (PEM); sidecars then connect with meter:tls://HOST:PORT"),
            ("--tls-key", "", "FILE", "its key (PEM, without a passphrase)")):
        parser.add_argument(flag, default=default, metavar=metavar, help=f"{text} (default: {default or 'none'})")
    parser.add_argument("--poll-ms", type=int, default=20, metavar="MS", help="how often the counter is read (default: 20)")
    return parser


def _address(listen: str) -> Address:
    try:
        return read_address(listen)
    except ValueError as error:
        raise ConfigError(f"--listen: {error}") from error


def _opened(energy: str, gpus: str, access: Access) -> EnergyCounter:
    """The counter. Raises UnavailableError and ValueError, ConfigError being one."""
    opened = open_counter(energy, gpus, lambda: 0, access)
    if opened.counter is None:
        raise UnavailableError("no energy source: " + "; ".join(reason for _, reason in opened.tried))
    return opened.counter


def _refuse(text: str) -> int:
    print(f"perjoule meter: {text}", file=sys.stderr)  # noqa: T201
    return USAGE_ERROR
