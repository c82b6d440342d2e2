"""Tells a sidecar of each step of an engine, in datagrams over a unix socket, and does the engine no harm whatever happens.

One datagram is one JSON object: `{"v":1,"from":ID,"steps":[STEP,…]}`. JSON, since a step lasts milliseconds and writing one takes ten
microseconds, a person can read it, and a later version may say more. `from` names this process. A STEP is an object of

    n         its number, from 1; the number of the last step where outputs came without one (another process told of that)
    rank      the engine core
    end_ns    when its outputs were there; as all times here by CLOCK_MONOTONIC, which containers of one host share
    took_ns   how long it took, or null
    running   requests that run after it, and `waiting` those that wait, or null
    prefill   prompt tokens computed in it, or null
    output    tokens generated in it
    preempted requests that lost their place in it
    firsts    for each request that got its first token in it, when it had arrived at the engine
    prompts   tokens of these requests' prompts, of which `cached` were cached, or null

Nobody is waited for: when the sidecar does not read, steps are kept and go with the next one; when there is no sidecar they are dropped.
"""

import json
import os
import socket
import time
from collections import deque
from typing import Any

VERSION = 1
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
KEPT = 64  # steps for a sidecar that does not read for a moment
KEPT_NS = 10 * NS_PER_S
MOST_LATE_NS = 5 * NS_PER_S  # since outputs came: the wall clock may have been set meanwhile


class Telling:
    """The way to one sidecar."""

    def __init__(self, where: str) -> None:
        """`where` is `unix:PATH`, as the sidecar is told with `--steps`. Raises OSError."""
        path = where.removeprefix("unix:")
        self._path = path[2:] if path.startswith("///") else path
        self.trouble = ""  # why the last step was not sent
        self._from = f"{os.getpid():x}-{time.monotonic_ns():x}"
        self._numbers: dict[int, int] = {}
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def tell(self, rank: int, scheduler: Any, iteration: Any, *, has_details: bool) -> None:
        """vLLM has an engine core's outputs: its SchedulerStats and IterationStats, each may be None. `has_details` if it was started
        with --enable-logging-iteration-details. May raise anything: what these hold is not the same in every version."""
        details = getattr(scheduler, "iteration_details", None)
        running = getattr(scheduler, "num_running_reqs", None)
        is_step = scheduler is not None and (_is_step(details) if has_details else iteration is not None or bool(running))
        if not is_step and iteration is None:
            return
        self._numbers[rank] = number = self._numbers.get(rank, 0) + is_step
        self._kept.append({
            "n": number, "rank": rank, "took_ns": None if details is None else round(details.elapsed_ms * NS_PER_MS),
            "running": running, "waiting": getattr(scheduler, "num_waiting_reqs", None),
            "prefill": None if details is None else details.num_ctx_tokens, **_outputs(iteration)})
        self._send()

    def close(self) -> None:
        """Nothing more will be told."""
        self._socket.close()

    def _send(self) -> None:
        while self._kept[-1]["end_ns"] - self._kept[0]["end_ns"] > KEPT_NS:
            self._kept.popleft()
        text = json.dumps({"v": VERSION, "from": self._from, "steps": list(self._kept)}, separators=(",", ":"))
        try:
            self._socket.sendto(text.encode(), self._path)
        except BlockingIOError:
            return
        except OSError as error:  # nobody is there, say
            self.trouble = error.strerror or str(error)
        self._kept.clear()


def _is_step(details: Any) -> bool:
    """Whether anything was computed, of which there are details: a rank that only keeps others company computes nothing."""
    return details is not None and not getattr(details, "is_dummy", False)


def _outputs(iteration: Any) -> dict[str, Any]:
    """What came out, and when."""
    now_ns = time.monotonic_ns()
    if iteration is None:
        return {"end_ns": now_ns, "output": 0, "preempted": 0, "firsts": [], "prompts": None, "cached": 0}
    late_ns = time.time_ns() - round(iteration.iteration_timestamp * NS_PER_S)
    end_ns = now_ns - late_ns if 0 <= late_ns <= MOST_LATE_NS else now_ns
    prompts = getattr(iteration, "prompt_token_stats", None)
    return {"end_ns": end_ns, "output": iteration.num_generation_tokens, "preempted": iteration.num_preempted_reqs,
            "firsts": [end_ns - round(since_s * NS_PER_S) for since_s in iteration.time_to_first_tokens_iter],
            "prompts": getattr(prompts, "total", None), "cached": getattr(prompts, "cached_tokens", 0)}
