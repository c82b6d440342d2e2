"""Secrets come from files and from two variables, never from flags; what cannot be used stops the start, and is not repeated."""

import pytest

from perjoule.main import main
from perjoule.sidecar.access.doors import Entry
from perjoule.sidecar.access.keys import read_keys
from perjoule.sidecar.settings.config import Config, ConfigError
from perjoule.sidecar.settings.credentials import OPEN, load

UPSTREAM = "http://127.0.0.1:8000"


def config(**settings):
    return Config(upstream=UPSTREAM, **settings).checked()


def written(folder, text, name="secret"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def lent(credentials):
    """What the engine is told of a request that shows no key."""
    return credentials.doors.enter("GET", "/v1/models", ()).add


@pytest.mark.parametrize("name", ["events", "grid"])
def test_tokens_of_what_we_ask_come_from_a_file_or_from_the_environment(tmp_path, name):
    """The sink of events has one, the source of carbon intensities another; neither shows where settings or secrets are printed."""
    file, variable = {f"{name}_token_file": written(tmp_path, "t0ken\n")}, {f"PERJOULE_{name.upper()}_TOKEN": "from-env"}
    found = [load(config(**file), variable), load(config(), variable), load(config(), {})]
    assert [getattr(each, f"{name}_token") for each in found] == ["t0ken", "from-env", None]
    assert "t0ken" not in repr(found)
    with pytest.raises(ConfigError, match=f"--{name}-token-file: .*expected a secret"):
        load(config(**{f"{name}_token_file": written(tmp_path, "two words")}), {})


def test_without_any_there_are_none():
    """Everybody comes in, nothing is added, and the operator's port is open to this host."""
    found = load(config(), {})
    assert (found.doors.keys, found.admin_token, lent(found)) == (None, None, ())
    assert lent(OPEN) == ()


def test_the_engine_s_key_comes_from_a_file_or_from_the_environment(tmp_path):
    """The line's end is not of it; the file wins, as what was asked for by name."""
    file = written(tmp_path, "sk-file\n")
    expected = {"sk-file": load(config(upstream_key_file=file), {"PERJOULE_UPSTREAM_KEY": "sk-env"}),
                "sk-env": load(config(), {"PERJOULE_UPSTREAM_KEY": "sk-env"})}
    for key, found in expected.items():
        assert lent(found) == (b"\r\nAuthorization: Bearer " + key.encode(),)


def test_the_operator_s_token_comes_from_a_file_or_from_the_environment(tmp_path):
    """And is not shown where credentials are."""
    found = load(config(admin_token_file=written(tmp_path, "  tok\r\n")), {})
    assert found.admin_token == "tok"
    assert "tok" not in repr(found).replace("token", "")
    assert load(config(), {"PERJOULE_ADMIN_TOKEN": "tok"}).admin_token == "tok"


def test_keys_and_routes_make_the_doors(tmp_path, capsys):
    """What `perjoule key` says, put into the file, lets its key in."""
    assert main(["key", "tenant-a"]) == 0
    key, entry = capsys.readouterr()
    found = load(config(keys=written(tmp_path, entry), allow_routes="/metrics"), {})
    bearer = ((b"Authorization", b"Bearer " + key.strip().encode()),)
    assert isinstance(found.doors.enter("GET", "/metrics", bearer), Entry)
    assert found.doors.enter("GET", "/load", bearer).status == 403


def test_keys_are_long_and_differ(capsys):
    """256 random bits, which nobody guesses; one line on standard output, nothing of it on standard error."""
    for _ in range(2):
        main(["key", "a"])
    out, err = capsys.readouterr()
    first, second = out.splitlines()
    assert first != second
    assert len(first) == len("pj-") + 43
    assert first not in err
    assert read_keys(err.partition("\n\n[[key]]")[0], "").name_of(first.encode()) == "a"


def test_a_name_that_is_none_is_refused(capsys):
    """Exit code 2 and the reason."""
    assert main(["key", "a\nb"]) == 2
    assert "name: got 'a\\nb', expected" in capsys.readouterr().err


@pytest.mark.parametrize("admin", ["127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "localhost:1", "unix:/run/a"])
def test_an_admin_port_of_this_host_needs_no_token(admin):
    """Who can connect there is on the host already."""
    assert load(config(admin=admin), {}).admin_token is None


@pytest.mark.parametrize("admin", ["0.0.0.0:1", ":1", "[::]:1", "10.0.0.1:1", "example.org:1"])
def test_an_admin_port_that_others_can_reach_needs_a_token(admin):
    """It shows who uses what."""
    with pytest.raises(ConfigError, match=r"--admin: got .*, which others can reach, expected a loopback address or a token"):
        load(config(admin=admin), {})
    assert load(config(admin=admin), {"PERJOULE_ADMIN_TOKEN": "tok"}).admin_token == "tok"


@pytest.mark.parametrize("flag", ["upstream_key_file", "admin_token_file"])
@pytest.mark.parametrize(("text", "said"), [("", "got 0 characters"), ("\n", "got 0 characters"), ("a secret", "got 8 characters"),
                                            ("secret\nsecret", "got 13 characters"), ("s\u00e9cret", "got 6 characters"),
                                            ("s" * 4097, "got 4097 characters"), (b"\xff", "is not text")])
def test_a_file_that_holds_no_secret_is_refused(flag, text, said, tmp_path):
    """What stands in it is not repeated."""
    with pytest.raises(ConfigError, match=f"--{flag.replace('_', '-')}: .*{said}") as refused:
        load(config(**{flag: written(tmp_path, text, name="file")}), {})
    assert "secret\n" not in str(refused.value)
    assert "a secret of" in str(refused.value) or "not text" in str(refused.value)


@pytest.mark.parametrize("setting", ["keys", "upstream_key_file", "admin_token_file"])
def test_a_file_that_is_not_there_is_refused(setting, tmp_path):
    """By the name of its flag."""
    with pytest.raises(ConfigError, match=f"--{setting.replace('_', '-')}: cannot read {tmp_path}/none: No such file"):
        load(config(**{setting: f"{tmp_path}/none"}), {})


def test_a_bad_keys_file_is_refused_by_line(tmp_path):
    """The whole of it."""
    with pytest.raises(ConfigError, match=r"--keys: .*/keys, line 1: name: got None"):
        load(config(keys=written(tmp_path, "[[key]]\n", name="keys")), {})


def test_routes_that_are_none_are_refused():
    """Before anything is read."""
    with pytest.raises(ConfigError, match=r"--allow-routes: got 'metrics', expected paths"):
        config(allow_routes="metrics")
