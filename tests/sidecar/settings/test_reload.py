"""A reload: what holds now, what waits for a restart, and both said."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from perjoule.sidecar.settings.config import Config
from perjoule.sidecar.settings.reload import AT_RESTART, changes

OLD = Config(upstream="http://127.0.0.1:8000")


def test_what_can_change_changes_and_is_said():
    """The setting, what it was and what it is."""
    changed = changes(OLD, Config(upstream=OLD.upstream, drain_s=5.0, comment=False))
    assert (changed.config.drain_s, changed.config.comment) == (5.0, False)
    assert (changed.now, changed.at_restart) == (("comment True -> False", "drain_s 30.0 -> 5.0"), ())


def test_what_was_opened_at_the_start_stays_and_is_said():
    """The port that is listened on cannot be another one while it is."""
    changed = changes(OLD, Config(upstream="http://127.0.0.1:8001", drain_s=5.0))
    assert (changed.config.upstream, changed.config.drain_s) == (OLD.upstream, 5.0)
    assert changed.at_restart == ("upstream 'http://127.0.0.1:8000' -> 'http://127.0.0.1:8001'",)


@pytest.mark.parametrize("url", ["postgresql://me:sesame@host/db", "postgresql://me:open/s@same@host/db?sslmode=require",
                                 "postgresql:///db?host=/run&password=sesame"])
def test_the_password_of_a_url_is_not_said(url):
    """The log tells that the ledger would be another one, and not how to get into it."""
    (said,) = changes(OLD, Config(upstream=OLD.upstream, ledger=url)).at_restart
    assert said.startswith("ledger 'auto' -> 'postgresql://")
    assert "same" not in said


def test_every_setting_that_waits_is_one():
    """A name that is none would let a setting change that cannot."""
    assert {f.name for f in fields(Config)} >= AT_RESTART
    assert changes(OLD, OLD).now == changes(OLD, OLD).at_restart == ()


def test_the_settings_that_wait_are_documented():
    """An operator can look them up before the night of the change."""
    said = (Path(__file__).parents[3] / "docs" / "operations.md").read_text().partition("holds after a restart:")[2].partition("\n\n")[0]
    assert set(re.findall(r"`--([a-z-]+)`", said)) == {name.replace("_", "-") for name in AT_RESTART}
