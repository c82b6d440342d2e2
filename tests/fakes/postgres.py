"""A real PostgreSQL server of our own, on a unix socket in a folder of its own, that can be stopped and started again."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOOLS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/bin"), key=lambda found: int(found.parent.name))
IS_THERE = (TOOLS / "initdb").exists()
SETTINGS = ("unix_socket_directories={folder}", "listen_addresses=", "shared_buffers=16MB", "max_connections=40")


class Postgres:
    """The server; `url` leads to a database in it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._data = folder, folder / "data"
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:  # as which it refuses to run
            owner = pwd.getpwnam("postgres")
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": ()}
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        self._run("initdb", "--auth=trust", "--username=perjoule", "--encoding=UTF8", "--no-sync", f"--pgdata={self._data}")
        self._databases = 0

    def start(self) -> None:
        settings = " ".join(f"-c {setting.format(folder=self._folder)}" for setting in SETTINGS)
        self._run("pg_ctl", "start", "-w", f"--pgdata={self._data}", f"--log={self._folder / 'log'}", f"--options={settings}")

    def stop(self) -> None:
        """At once, as a crash would: what was committed is there at the next start."""
        self._run("pg_ctl", "stop", "-w", "--mode=immediate", f"--pgdata={self._data}")

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        self._run("createdb", f"--host={self._folder}", "--username=perjoule", f"ledger{self._databases}")
        return f"postgresql://perjoule@/ledger{self._databases}?host={self._folder}"

    def _run(self, tool: str, *arguments: str) -> None:
        done = subprocess.run([TOOLS / tool, *arguments], cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, timeout=120, text=True, env={"PATH": str(TOOLS), "LC_ALL": "C"}, **self._as)
        assert done.returncode == 0, f"{tool}: {done.stderr}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="perjoule-postgres-"))
    try:
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
