"""A sink of CloudEvents over real HTTP: it answers as it is told, request by request, and remembers what it was sent."""

import asyncio
import json
from contextlib import asynccontextmanager

from aiohttp import web

TAKE, SILENT, CUT = 204, "takes, and never says so", "hangs up"


class EventSink:
    """`answers` are what the next requests get: a status, SILENT or CUT; then it takes all. `seen` has every content of each (source, id)
    that came with a request it took, `refused` are ids that it calls bad."""

    def __init__(self):
        self.answers, self.seen, self.requests, self.refused, self.url = [], {}, [], set(), ""

    @property
    def ids(self):
        return {event_id for _, event_id in self.seen}

    async def take(self, request):
        events = json.loads(await request.read())
        self.requests.append((request.path, dict(request.headers), events))
        answer = self.answers.pop(0) if self.answers else TAKE
        if answer == TAKE and self.refused & {event["id"] for event in events}:
            answer = 400
        if answer in (TAKE, SILENT):
            for event in events:
                self.seen.setdefault((event["source"], event["id"]), []).append(event)
        if answer == SILENT:
            await asyncio.sleep(30)  # longer than anybody waits; the end of the test ends it
        if answer == CUT:
            request.transport.close()
        return web.Response(status=answer if isinstance(answer, int) else 500, text="the reason")


@asynccontextmanager
async def event_sink(port=0, known=None):
    """A sink on a port; `known` is one that stood there before and comes back."""
    sink = known or EventSink()
    app = web.Application()
    app.router.add_post("/api/v1/events", sink.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    sink.port = runner.addresses[0][1]
    sink.url = f"http://127.0.0.1:{sink.port}/api/v1/events"
    try:
        yield sink
    finally:
        await runner.cleanup()
