"""The pages keep their promises: every setting is documented as it is, every link leads somewhere, every command is understood."""

import json
import re
import tomllib
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from perjoule.sidecar.settings.config import Config
from perjoule.sidecar.settings.sources import PREFIX
from tests.commands import commands, fences, mistakes

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SECRETS = {"UPSTREAM_KEY", "ADMIN_TOKEN", "ENERGY_TOKEN", "EVENTS_TOKEN", "GRID_TOKEN"}
"""Which are no settings: `sidecar/settings/credentials.py` reads them."""
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()


def row(setting: Field[Any]) -> str:
    """How the row of a setting in docs/configuration.md must begin."""
    flag = "--" + setting.name.replace("_", "-")
    value = setting.metadata["metavar"] or "|".join(setting.metadata["choices"])
    said = f"`{flag} {value}`".replace("|", r"\|")
    default = "none" if setting.default == "" else f"`{setting.default}`"
    if setting.type is bool:
        said, default = f"`{flag}` `--no-{flag[2:]}`", "`yes`" if setting.default else "`no`"
    return f"| {said} | `{PREFIX}{setting.name.upper()}` | {default} | "


@pytest.mark.parametrize("setting", fields(Config), ids=lambda setting: setting.name)
def test_every_setting_is_documented_as_it_is(setting: Field[Any]) -> None:
    """Flag, values, variable and default of each setting stand in docs/configuration.md, with a sentence behind."""
    rows = [line for line in CONFIGURATION.splitlines() if line.startswith(row(setting))]
    assert len(rows) == 1, f"docs/configuration.md: expected one row that begins with {row(setting)!r}, got {rows}"
    assert rows[0].removeprefix(row(setting)).strip(" |").endswith(".")


def test_no_setting_is_documented_that_does_not_exist() -> None:
    """A variable on the page is a setting of the program."""
    documented = set(re.findall(rf"`{PREFIX}(\w+)`", CONFIGURATION))
    assert documented == {setting.name.upper() for setting in fields(Config)} | {"CONFIG", *SECRETS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    """Links between the pages, and from them into the tree, name files that are there."""
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text())
    assert not [link for link in links if ":" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_is_understood(page: Path) -> None:
    """`perjoule …`, in a block or in a line, has flags and choices that the program has."""
    assert not [mistake for words in commands(page.read_text()) for mistake in mistakes(words)]


READERS: dict[str, Callable[[str], object]] = {
    "json": json.loads, "toml": tomllib.loads, "yaml": lambda text: list(yaml.safe_load_all(text)),
    "python": lambda text: compile(text, "a page", "exec", PyCF_ALLOW_TOP_LEVEL_AWAIT)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_on_a_page_can_be_read(page: Path) -> None:
    """JSON, TOML, YAML and Python are just that."""
    for block in fences(page.read_text()):
        if block.language in READERS:
            READERS[block.language](block.text)


def test_a_wrong_command_would_be_found() -> None:
    """What these tests look for, they find."""
    page = "\n```bash\nperjoule serve --upstream URL --enrgy nvml --engine vlm &\n```\n\n`perjoule ledger FILE report --by x --prise 3`\n"
    found = [mistake for words in commands(page) for mistake in mistakes(words)]
    assert [re.search(r"--\w+", mistake)[0] for mistake in found] == ["--enrgy", "--engine", "--prise"]  # type: ignore[index]
