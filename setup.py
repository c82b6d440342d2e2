"""Builds perjoule; with PERJOULE_COMPILE=1 its core as well, by mypyc: the same modules, at half of their CPU time (decision 0010)."""

import os
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
COMPILED = ("units", "record", "ports", "telemetry", "metering/*", "dialects/*", "access/*", "http/addresses", "http/paths", "http/heads",
            "http/upstream", "http/downstream", "http/front", "relay/*", "records/span", "records/recent", "process/in_order",
            "process/wire")


def modules():
    """The files that are compiled: what sees every frame and every request, and what divides the joules."""
    found = (path for name in COMPILED for path in HERE.glob(f"src/perjoule/sidecar/{name}.py"))
    return sorted(str(path.relative_to(HERE)) for path in found if path.name != "__init__.py")


def built():
    """What `setup` is told beside pyproject.toml."""
    if os.environ.get("PERJOULE_COMPILE") != "1":
        return {}
    try:
        from mypyc.build import mypycify
    except ImportError:  # asked for what is needed to build, before it is there
        return {"setup_requires": ["mypy[mypyc]>=1.15"]}
    options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
    return {"ext_modules": mypycify([*options, *modules()], group_name="perjoule")}


setup(**built())
