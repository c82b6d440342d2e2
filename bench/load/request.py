"""The bytes of a request: its body from the prompter, and the head that goes with it."""

from collections.abc import Mapping
from typing import Any

import orjson

from perjoule.bench.load.job import Job, Task
from perjoule.sidecar.dialects.endpoints import Dialect, endpoint_of
from perjoule.sidecar.http.addresses import Unix, read_origin

_STREAMS = frozenset({Dialect.CHAT, Dialect.COMPLETIONS, Dialect.RESPONSES, Dialect.MESSAGES})


class Requests:
    """Makes the requests of a job. Raises ValueError for a URL that is none, or that is a socket's."""

    def __init__(self, job: Job) -> None:
        origin = read_origin(job.url)
        if isinstance(origin.address, Unix):
            raise ValueError(f"got {job.url}, expected http:// or https://")
        fields = {"Host": str(origin.address), "Content-Type": "application/json", "Accept": "*/*", "User-Agent": "perjoule-replay",
                  **job.headers}
        self._fields = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._prompter, self._run_id = job.prompter, job.run_id
        self.host, self.port, self.is_tls, self._prefix = origin.address.host, origin.address.port, origin.tls, origin.prefix

    def id(self, index: int) -> str:
        return f"{self._run_id}-{index}"

    def __call__(self, task: Task) -> bytes:
        """A whole request. Raises what the prompter raises."""
        path, index = task.turn.endpoint, task.row.index
        body = orjson.dumps(streamed(path, self._prompter.body(task.turn, index)))
        return (f"POST {self._prefix}{path} HTTP/1.1\r\n{self._fields}X-Request-Id: {self.id(index)}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode("latin-1") + body


def streamed(path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body that asks for a stream, and for usage in it, where its endpoint has them; one that does not want to be streamed stays."""
    endpoint = endpoint_of("POST", path)
    if endpoint is None or endpoint.dialect not in _STREAMS or not body.get("stream", True):
        return body
    asked = {**body, "stream": True}
    if endpoint.asks_usage:
        asked["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return asked
