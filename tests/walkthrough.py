"""Plays the commands of a page as a reader would: in order, in one shell, in an empty folder.

A fence of ```bash is played if the line above it begins with `<!-- run`. The comment may go on: `, prints TEXT` (a regular expression
that must be found in what the block prints; given several times, all of them), and `, exit N` (the block's exit code, 0 if not told).
Ports are those of the page, each exchanged for one that is free. What a block starts in the background goes on until the page's end.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

# Read once: pages are played in threads, and pytest names each test that begins in os.environ, which cannot be read meanwhile.
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("PERJOULE_", "OTEL_"))}
PATIENCE_S = 240
GOODBYE_S = 3.0
PORTS = re.compile(r"(?<=127\.0\.0\.1:)\d{4,5}|(?<=--port )\d{4,5}")
PLAYED = re.compile(r"^<!-- run(?P<asked>[^\n]*?) *-->\n+```bash[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """Commands that a page has its reader type, and what must come of it."""

    code: str
    prints: tuple[str, ...]
    exit_code: int


def blocks(page: Path) -> list[Block]:
    """What is to be played of a page."""
    found = []
    for played in PLAYED.finditer(page.read_text()):
        asked = [part.strip() for part in played["asked"].split(", ") if part.strip(" ,")]
        prints = tuple(part.removeprefix("prints ") for part in asked if part.startswith("prints "))
        exits = [int(part.removeprefix("exit ")) for part in asked if part.startswith("exit ")]
        assert len(prints) + len(exits) == len(asked), f"{page.name}: got <!-- run{played['asked']} -->, expected prints TEXT, exit N"
        found.append(Block(played["code"], prints, exits[0] if exits else 0))
    return found


def with_free_ports(text: str, known: Mapping[str, str]) -> str:
    """The text with each of its ports exchanged, for those that are known or else for a free one."""
    ports = dict(known)
    with ExitStack() as held:  # all at once, so that no two are the same
        for port in sorted(set(PORTS.findall(text)) - set(ports)):
            probe = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports[port] = str(probe.getsockname()[1])
    return PORTS.sub(lambda port: ports[port[0]], text)


def script(page: list[Block]) -> str:
    """One shell script that leaves what each block printed in out.N, its exit code in code.N, and ends with the first that goes wrong."""
    lines = ["trap 'echo $? >code.$_block' EXIT", "set -e"]
    for number, block in enumerate(page):
        lines += [f"_block={number}; exec >out.$_block 2>&1"]
        if block.exit_code:
            lines += ["set +e; (", block.code, f"); got=$?; set -e; [ $got = {block.exit_code} ] || exit $got"]
        else:
            lines += [block.code]
        lines += [f"echo {block.exit_code} >code.$_block"]
    return "\n".join([*lines, "_block=end"])


def play(page: Path, folder: Path, ports: Mapping[str, str] | None = None, words: Mapping[str, str] | None = None) -> list[str]:
    """Play a page in `folder`, with these ports and words in place of its own; returns what each block printed.
    Raises AssertionError, with what was printed, if it went otherwise than the page says."""
    todo = blocks(page)
    text = script(todo)
    for word, instead in (words or {}).items():
        text = text.replace(word, instead)
    text = with_free_ports(text, ports or {})
    environ = ENVIRON | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{ENVIRON['PATH']}", "HOME": str(folder),
                         "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "160", "PYTHONUNBUFFERED": "1"}
    with (folder / "shell").open("wb") as said:
        shell = subprocess.Popen(["bash", "-c", text], cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                 start_new_session=True)
        try:
            with suppress(subprocess.TimeoutExpired):
                shell.wait(PATIENCE_S)
        finally:
            end_session(shell)
    printed = [out.read_text(errors="replace") if (out := folder / f"out.{number}").exists() else "" for number in range(len(todo))]
    for number, block in enumerate(todo):
        code = (folder / f"code.{number}").read_text().strip() if (folder / f"code.{number}").exists() else "none"
        told = f"{page.name}, block {number + 1}:\n{block.code}\nexit code {code}, printed:\n{printed[number][-3000:]}"
        assert code == str(block.exit_code), f"expected exit code {block.exit_code} of {told}"
        for wanted in block.prints:
            assert re.search(wanted, printed[number]), f"expected {shlex.quote(wanted)} in what was printed of {told}"
    return printed


def end_session(shell: subprocess.Popen[bytes]) -> None:
    """End what was started in the background, politely, then for good."""
    with suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGTERM)
        deadline = time.monotonic() + GOODBYE_S
        while time.monotonic() < deadline:
            shell.poll()
            os.killpg(shell.pid, 0)
            time.sleep(0.05)
        os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
