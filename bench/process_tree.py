"""What a process and its children have cost so far, as Linux counts it: CPU time by thread, and memory."""

from collections.abc import Iterator
from os import sysconf
from pathlib import Path
from typing import NamedTuple

from perjoule.sidecar.units import NS_PER_S

PROC = Path("/proc")
TICK_NS = NS_PER_S // sysconf("SC_CLK_TCK")
KIB = 1024


class Cpu(NamedTuple):
    """Nanoseconds on a core since the start: of the first threads, which in Python hold the event loop, and of all others."""

    first_ns: int
    others_ns: int

    @property
    def ns(self) -> int:
        """Of all threads."""
        return self.first_ns + self.others_ns

    def since(self, before: "Cpu") -> "Cpu":
        """What has been added since an earlier look."""
        return Cpu(self.first_ns - before.first_ns, self.others_ns - before.others_ns)


class Memory(NamedTuple):
    """Bytes: resident, where pages shared by several processes count in each, and proportional, where they are divided; None where
    the kernel does not let us read it."""

    rss: int
    pss: int | None


def pids(root: int) -> Iterator[int]:
    """The process, its children, theirs, and so on."""
    yield root
    for task in (PROC / str(root) / "task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # the thread has ended meanwhile
            continue
        for child in children:
            yield from pids(int(child))


def cpu(root: int) -> Cpu:
    """CPU time of all living threads of the tree; user and system."""
    first = others = 0
    for pid in pids(root):
        for task in (PROC / str(pid) / "task").glob("[0-9]*"):
            spent = _thread_ns(task)
            if task.name == str(pid):
                first += spent
            else:
                others += spent
    return Cpu(first, others)


def each(root: int) -> dict[int, int]:
    """Nanoseconds on a core since the start, by process of the tree."""
    return {pid: sum(map(_thread_ns, (PROC / str(pid) / "task").glob("[0-9]*"))) for pid in pids(root)}


def memory(root: int) -> Memory:
    """Memory of the whole tree. Raises FileNotFoundError for a process that is not there."""
    rss, pss = 0, 0
    readable = True
    for pid in pids(root):
        rss += _number(PROC / str(pid) / "status", "VmRSS") * KIB
        try:
            pss += _number(PROC / str(pid) / "smaps_rollup", "Pss") * KIB
        except PermissionError:
            readable = False
    return Memory(rss, pss if readable else None)


def open_files(root: int) -> int:
    """How many file descriptors the whole tree holds."""
    return sum(len(list((PROC / str(pid) / "fd").iterdir())) for pid in pids(root))


def threads(root: int) -> int:
    """How many threads the whole tree has."""
    return sum(_number(PROC / str(pid) / "status", "Threads") for pid in pids(root))


def _thread_ns(task: Path) -> int:
    """By the scheduler's own count, to the nanosecond; by ticks where the kernel does not show that; 0 once it has ended."""
    try:
        return int((task / "schedstat").read_text().split()[0])
    except (OSError, IndexError):
        pass
    try:
        fields = (task / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) * TICK_NS  # utime and stime, fields 14 and 15 of proc_pid_stat(5)


def _number(file: Path, key: str) -> int:
    """The number behind `key:` in a file of the kernel's."""
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(key + ":"))
