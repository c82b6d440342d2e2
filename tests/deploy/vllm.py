"""The embedded engine under vLLM's command line (`serve MODEL --host … --port … --ssl-certfile …`), for what is written for vLLM."""

import argparse
import asyncio
import signal
import ssl
import sys

from aiohttp import web

from perjoule.bench import dialect
from perjoule.bench.engine import Engine


async def serve(flags: argparse.Namespace) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    context = None
    if flags.ssl_certfile:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(flags.ssl_certfile, flags.ssl_keyfile)
    runner = web.AppRunner(Engine(speed=4.0).app(), access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.UnixSite(runner, flags.uds) if flags.uds else web.TCPSite(runner, flags.host, flags.port, ssl_context=context)
    await site.start()
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """What it does not know are vLLM's own settings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")  # `serve MODEL`
    parser.add_argument("--model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--uds")
    parser.add_argument("--ssl-certfile")
    parser.add_argument("--ssl-keyfile")
    flags = parser.parse_known_args(sys.argv[1:])[0]
    dialect.MODEL = flags.model or flags.words[-1]  # it answers to one name only
    asyncio.run(serve(flags))


if __name__ == "__main__":
    main()
