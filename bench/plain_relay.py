"""The relay that people write with aiohttp in an afternoon: a handler, a ClientSession, and `iter_any`; it measures nothing.

    python -m perjoule.bench.plain_relay --upstream http://127.0.0.1:8000
"""

import argparse
import asyncio
import json
import sys

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

OWN = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"}  # of one connection, not of the message


async def serve(upstream: str) -> None:
    """Relay until the process is told to end; prints where, as JSON."""
    connector = TCPConnector(limit=0, keepalive_timeout=4)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=None), cookie_jar=DummyCookieJar(),
                             auto_decompress=False) as session:

        async def relay(request: web.BaseRequest) -> web.StreamResponse:
            headers = [(name, value) for name, value in request.headers.items() if name.lower() not in OWN]
            body = await request.read() if request.body_exists else None
            async with session.request(request.method, upstream + request.path_qs, headers=headers, data=body,
                                       allow_redirects=False) as answer:
                kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in OWN]
                response = web.StreamResponse(status=answer.status, reason=answer.reason)
                response.headers.extend(kept)
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
                return response

        server = await asyncio.get_running_loop().create_server(web.Server(relay), "127.0.0.1", 0, backlog=1024)
        print(json.dumps({"listen": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
        await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, metavar="URL")
    uvloop.run(serve(parser.parse_args().upstream))
    return 0


if __name__ == "__main__":
    sys.exit(main())
