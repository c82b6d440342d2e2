"""docs/replay.md and docs/workloads.md name every flag of the command, and no other."""

import re
from pathlib import Path

from perjoule.bench.runs.flags import parser

DOCS = Path(__file__).parents[3] / "docs"
FLAG = re.compile(r"`(--[a-z-]+)")


def test_every_flag_is_documented():
    ours = {action.option_strings[-1] for action in parser()._actions} - {"--help"}
    said = {page: set(FLAG.findall((DOCS / page).read_text())) for page in ("replay.md", "workloads.md")}
    assert ours <= said["replay.md"]
    assert said["replay.md"] <= ours
