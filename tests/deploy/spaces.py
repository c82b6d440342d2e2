"""Network namespaces in place of hosts or containers: each has a name that the others know, and processes run in it."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 60.0
BRIDGE, ADDRESS = "pj-compose", "10.88.0."


def available() -> bool:
    """Root, iproute2, and a kernel that lets us."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"pj-try-{os.getpid()}"  # a device's name has 15 characters at most
    return all(subprocess.run(command.split(), capture_output=True, check=False).returncode == 0 for command in (
        f"ip link add {name} type bridge", f"ip link del {name}", f"ip netns add {name}", f"ip netns del {name}"))


class Spaces:
    """What runs where. Its output is in `folder`, in a file of the place's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, place: str, script: str, environment: dict[str, str]) -> None:
        """A shell script in a namespace, until `stop`."""
        with (self.folder / f"{place}.log").open("ab") as log:
            command = ["ip", "netns", "exec", f"pj-{place}", "bash", "-c", script]
            self.running[place] = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, env=environment,
                                                   start_new_session=True)

    def stop(self, place: str) -> int:
        """End it, and all that it started; its exit code."""
        process = self.running.pop(place)
        os.killpg(process.pid, signal.SIGTERM)
        return process.wait(PATIENCE_S)

    def ask(self, place: str, script: str) -> str:
        """What a script there writes."""
        return subprocess.run(["ip", "netns", "exec", f"pj-{place}", "bash", "-c", script], cwd=self.folder, text=True, capture_output=True,
                              check=False, timeout=PATIENCE_S).stdout

    def said(self) -> str:
        """What all of them wrote."""
        return "".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in self.folder.glob("*.log"))


@contextmanager
def alone() -> Iterator[None]:
    """Names of namespaces hold for the whole machine: one at a time."""
    with (Path(tempfile.gettempdir()) / "perjoule-namespaces.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def spaces(folder: Path, places: Sequence[str]) -> Iterator[Spaces]:
    """A namespace for each place, on one bridge; all is gone at the end."""
    with alone():
        made = Spaces(folder)
        names = "127.0.0.1 localhost\n" + "".join(f"{ADDRESS}{number} {place}\n" for number, place in enumerate(places, 1))
        try:
            _run(f"ip link add {BRIDGE} type bridge", f"ip link set {BRIDGE} up")
            for number, place in enumerate(places, 1):
                space, cable = f"pj-{place}", f"pjc{number}"
                _run(f"ip netns add {space}", f"ip link add {cable} type veth peer name eth0 netns {space}",
                     f"ip link set {cable} master {BRIDGE} up", f"ip -n {space} address add {ADDRESS}{number}/24 dev eth0",
                     f"ip -n {space} link set eth0 up", f"ip -n {space} link set lo up")
                (etc := Path("/etc/netns") / space).mkdir(parents=True, exist_ok=True)
                (etc / "hosts").write_text(names)
            yield made
        finally:
            for place in list(made.running):
                made.stop(place)
            for place in places:
                subprocess.run(["ip", "netns", "del", f"pj-{place}"], capture_output=True, check=False)
                shutil.rmtree(f"/etc/netns/pj-{place}", ignore_errors=True)
            subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


def _run(*commands: str) -> None:
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True)
