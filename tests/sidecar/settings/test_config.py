"""Flags, environment and file mean the same things, and bad settings say what was got and what was expected."""

import argparse

import pytest

from perjoule.sidecar.http.addresses import Origin, Tcp, Unix
from perjoule.sidecar.settings.config import Config, ConfigError
from perjoule.sidecar.settings.sources import add_flags, load

UPSTREAM = ["--upstream", "http://127.0.0.1:8000"]


def flags(*args):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return vars(parser.parse_args([*UPSTREAM, *args]))


def test_the_three_ways_mean_the_same(tmp_path):
    """One setting by flag, by variable and by key gives one Config."""
    file = tmp_path / "a.toml"
    file.write_text('ledger_days = 7\ncomment = false\nconnect_timeout_s = 2\ngpus = "GPU-1"')
    by_flag = load(flags("--ledger-days", "7", "--no-comment", "--connect-timeout-s", "2", "--gpus", "GPU-1"), {})
    by_variable = load(flags(), {"PERJOULE_LEDGER_DAYS": "7", "PERJOULE_COMMENT": "off", "PERJOULE_CONNECT_TIMEOUT_S": "2",
                                 "PERJOULE_GPUS": "GPU-1"})
    by_file = load(flags("--config", str(file)), {})
    by_named_file = load(flags(), {"PERJOULE_CONFIG": str(file)})
    assert by_flag == by_variable == by_file == by_named_file
    assert by_flag != load(flags(), {})


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path):
    """The nearer to the person who typed it, the stronger."""
    file = tmp_path / "a.toml"
    file.write_text("poll_ms = 1\nledger_days = 1\nledger_mb = 1")
    environ = {"PERJOULE_POLL_MS": "2", "PERJOULE_LEDGER_DAYS": "2"}
    got = load(flags("--config", str(file), "--poll-ms", "3"), environ)
    assert (got.poll_ms, got.ledger_days, got.ledger_mb) == (3, 2, 1)


@pytest.mark.parametrize(("text", "said"), [
    ("poll_ms = \"often\"", r"poll_ms: got 'often', expected a whole number"),
    ("poll_ms = 2.5", r"poll_ms: got 2.5, expected a whole number"),
    ("comment = 1", r"comment: got 1, expected true or false"),
    ("pol_ms = 1", r"unknown setting 'pol_ms', expected one of admin, "),
    ("engine = \"vlm\"", r"engine: got 'vlm', expected one of auto, vllm"),
    ("poll_ms = 0", r"a.toml, line 1: poll_ms: got 0, expected 1 to 1000"),
    ("# a comment\n\ndrain_s = nan", r"a.toml, line 3: drain_s: got nan, expected 0.0 to"),
    ("connect_timeout_s = inf", r"line 1: connect_timeout_s: got inf, expected"),
    ("poll_ms = 5\n  max_num_seqs = -5", r"line 2: max_num_seqs: got -5, expected 0 to"),
    ("listen = \"9000\"", r"line 1: listen: got '9000', expected HOST:PORT"),
    ("gpus = \"0=GPU-a;GPU-b\"", r"line 1: gpus: got '0=GPU-a;GPU-b' .*, expected all, UUID,UUID or"),
    ("poll_ms = 5\nupstream\npoll_ms = 6", r"not TOML: .*line 2"),
])
def test_a_bad_file_says_what_was_got_and_expected(tmp_path, text, said):
    """Whoever wrote it can mend it from the message alone."""
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load(flags("--config", str(file)), {})


@pytest.mark.parametrize("upstream", ["127.0.0.1:8000", "ftp://a", "http://", "http://a:1?b=c", "http://a:99999", "http://u:secret@a:1"])
def test_an_upstream_must_be_a_url(upstream):
    """The one setting that everybody has to give is checked before anything starts, and a password is not repeated."""
    with pytest.raises(ConfigError, match=r"--upstream: got .*, expected") as refused:
        Config(upstream=upstream).checked()
    assert "secret" not in str(refused.value)


def test_an_upstream_is_required():
    """Who gives none is told so."""
    with pytest.raises(ConfigError, match="--upstream is required"):
        Config().checked()


@pytest.mark.parametrize(("listen", "upstream"), [("127.0.0.1:9000", "http://127.0.0.1:9000"), ("0.0.0.0:9000", "http://localhost:9000"),
                                                  ("[::1]:80", "http://[::1]"), ("10.0.0.1:9000", "http://10.0.0.1:9000"),
                                                  ("unix:/a.sock", "unix:///a.sock")])
def test_a_sidecar_does_not_stand_in_front_of_itself(listen, upstream):
    """Each request would make another, without end."""
    with pytest.raises(ConfigError, match="where this sidecar itself would listen"):
        Config(upstream=upstream, listen=listen).checked()


def test_a_file_that_is_not_text_is_refused(tmp_path):
    """Bytes that are no UTF-8 are no TOML."""
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        load(flags("--config", str(tmp_path / "a.toml")), {})


def test_a_variable_of_the_wrong_type_is_refused():
    """The message names the variable."""
    with pytest.raises(ConfigError, match=r"PERJOULE_WORKERS: got 'two', expected a whole number"):
        load(flags(), {"PERJOULE_WORKERS": "two"})


def test_places_are_read_as_they_are_written():
    """Both ends of the sidecar, whatever kind of socket each is."""
    config = Config(upstream="https://a/v2", listen="unix:/run/perjoule.sock", admin="[::1]:9464").checked()
    assert (config.address("listen"), config.address("admin")) == (Unix("/run/perjoule.sock"), Tcp("::1", 9464))
    assert config.origin() == Origin(Tcp("a", 443), tls=True, prefix="/v2")


@pytest.mark.parametrize("mode", ["", "rw", "999", "7", "0o660", "01777", "-77"])
def test_a_socket_mode_is_octal(mode):
    """As chmod takes it."""
    with pytest.raises(ConfigError, match=f"--socket-mode: got {mode!r}, expected octal permissions"):
        Config(upstream="http://a:1", socket_mode=mode).checked()


@pytest.mark.parametrize("steps", ["127.0.0.1:9", "/run/steps.sock", "unix:", "unix:" + "x" * 200])
def test_steps_are_told_on_a_unix_socket(steps):
    """Nobody else than this host's engine can tell."""
    with pytest.raises(ConfigError, match="--steps: got"):
        Config(upstream="http://a:1", steps=steps).checked()
    assert Config(upstream="http://a:1", steps="unix:///run/steps.sock").checked().steps_path() == "/run/steps.sock"
