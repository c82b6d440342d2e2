"""The container image: what its recipe says, and, where buildah is, the recipe executed and the image run with a read-only root."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import aiohttp
import pytest

from perjoule.bench.child import child
from perjoule.bench.dialect import MODEL

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "deploy" / "image" / "Dockerfile"
TEXT = re.sub(r"\\\n\s*", "", "\n".join(line for line in RECIPE.read_text().splitlines() if not line.startswith("#")))
LINES = [line.split(maxsplit=1) for line in TEXT.splitlines() if line]
PATIENCE_S = 60.0
STAND_IN = "python3,python3-venv,python3-dev,ca-certificates"  # Debian's, where Docker Hub cannot be reached


def values(instruction):
    """What follows it, each time."""
    return [rest for name, rest in LINES if name == instruction]


def test_the_recipe_asks_for_no_rights_and_fetches_nothing_unseen():
    """A numbered user, a version of the base, packages by pip alone, and a process that gets the signal itself."""
    assert re.fullmatch(r"PYTHON=docker\.io/library/python:3\.\d+-slim-\w+", values("ARG")[0])
    assert values("FROM") == ["${PYTHON} AS build", "${PYTHON}"]
    assert "ADD" not in {name for name, _ in LINES}
    assert not re.search(r"https?://(?!127\.0\.0\.1)|curl|wget|sudo|chmod", TEXT)
    user, group = values("USER")[0].split(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    assert values("VOLUME") == ["/var/lib/perjoule"]
    assert values("STOPSIGNAL") == ["SIGTERM"]
    assert [json.loads(values(name)[0]) for name in ("ENTRYPOINT", "CMD")] == [["perjoule"], ["serve"]]
    assert LINES.index(["USER", f"{user}:{group}"]) > max(i for i, (name, _) in enumerate(LINES) if name in ("RUN", "COPY"))


def test_what_is_copied_is_there_and_let_in():
    """The list of what the build may see holds what it copies, and no more."""
    let_in = {line[1:] for line in (RECIPE.parent / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for rest in values("COPY") if "--from" not in rest for source in rest.split()[:-1]}
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


def buildah(folder, *arguments):
    """Its standard output."""
    command = ["buildah", "--root", str(folder / "store"), "--runroot", str(folder / "run"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.strip()


def base(folder, name):
    """The base image, or Debian's Python under its name."""
    try:
        buildah(folder, "pull", "--quiet", name)
    except AssertionError:
        subprocess.run(["mmdebstrap", "--variant=minbase", f"--include={STAND_IN}", "bookworm", str(folder / "base.tar")], check=True)
        made = buildah(folder, "from", "scratch")
        buildah(folder, "add", "--quiet", made, str(folder / "base.tar"), "/")
        buildah(folder, "commit", "--quiet", made, name)


def built(folder, *arguments):
    """The recipe, executed: the name of a container whose root is the image."""
    name = values("ARG")[0].removeprefix("PYTHON=")
    base(folder, name)
    shared = [f"--volume={path}:{path}:ro" for path in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt") if Path(path).exists()]
    buildah(folder, "bud", "--pull-never", "--format", "docker", "--isolation", "chroot", *shared, *arguments, "-f", str(RECIPE),
            "-t", "perjoule", ".")
    return buildah(folder, "from", "--pull-never", "localhost/perjoule")


@pytest.fixture
def workshop():
    """Where it is built; all of it goes at the end, and what Buildah has mounted."""
    folder = Path(tempfile.mkdtemp(prefix="perjoule-image-"))
    yield folder
    buildah(folder, "umount", "--all")
    buildah(folder, "rm", "--all")
    subprocess.run(["umount", "--recursive", folder / "store" / "overlay"], check=False, capture_output=True)
    shutil.rmtree(folder)


@pytest.mark.skipif(not os.environ.get("PERJOULE_IMAGE_TEST") or os.geteuid() != 0 or shutil.which("buildah") is None,
                    reason="PERJOULE_IMAGE_TEST=1 builds the image; it needs root, buildah and mmdebstrap")
async def test_the_image_runs_with_a_read_only_root(tmp_path, workshop):
    """As the user that it names, without a capability: it serves, is healthy, keeps its ledger in the volume, drains, and ends with 0."""
    container = await asyncio.to_thread(built, workshop, *shlex.split(os.environ.get("PERJOULE_IMAGE_ARGS", "")))
    root = Path(buildah(workshop, "mount", container))
    config = json.loads(buildah(workshop, "inspect", container))["Docker"]["config"]
    uid = int(config["User"].partition(":")[0])
    own = sum(int(subprocess.run(["du", "-sm", root / part], capture_output=True, text=True, check=True).stdout.split()[0])
              for part in ("opt/perjoule", "var/lib/perjoule"))
    assert own < 170, f"{own} MB on top of the base"
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, uid, uid)
    inside = (f"mount --bind {root} {root} && mount --bind {state} {root}/var/lib/perjoule && mount -o remount,bind,ro {root} && "
              f"exec chroot {root} setpriv --reuid={uid} --regid={uid} --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "
              "env -i \"$@\"")

    def command(*words):
        return ["unshare", "--mount", "sh", "-c", inside, "sh", *config["Env"], *words]

    async with child("perjoule.bench.engine", "--port", "0", "--speed", "4") as engine:
        flags = ["serve", "--upstream", engine["url"], "--energy", f"simulated:{engine['url']}"]
        process = await asyncio.create_subprocess_exec(*command(*config["Entrypoint"], *flags), stdout=subprocess.PIPE)
        try:
            where = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE_S))
            assert where["admin"].endswith(":9464")
            healthy = await asyncio.create_subprocess_exec(*command(*config["Healthcheck"]["Test"][1:]))
            assert await asyncio.wait_for(healthy.wait(), PATIENCE_S) == 0
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
            async with aiohttp.ClientSession() as session, session.post("http://127.0.0.1:9000/v1/chat/completions", json=body) as answer:
                assert answer.status == 200
                assert float(answer.headers["X-Energy-Joules"]) > 0
        finally:
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    assert (state / "ledger.sqlite3").stat().st_uid == uid
    sick = await asyncio.create_subprocess_exec(*command(*config["Healthcheck"]["Test"][1:]), stderr=subprocess.DEVNULL)
    assert await asyncio.wait_for(sick.wait(), PATIENCE_S) != 0
    assert not list(root.glob("var/lib/perjoule/*"))
