"""The keys file: hashes of keys, names, budgets; refused whole when one line of it cannot be used."""

import hashlib

import pytest

from perjoule.sidecar.access.keys import Budget, KeysError, entry_for, read_keys

A, B = (hashlib.sha256(key).hexdigest() for key in (b"pj-a", b"pj-b"))


def test_a_key_is_known_by_its_hash():
    """The name of who has it; nobody for anything else, and nobody for the hash itself."""
    keys = read_keys(f'[[key]]\nname = "tenant-a"\nsha256 = "{A}"\n\n[[key]]\nname = "org/b@x"\nsha256 = "{B.upper()}"\n', "keys.toml")
    assert [keys.name_of(key) for key in (b"pj-a", b"pj-b", b"pj-c", b"", A.encode())] == ["tenant-a", "org/b@x", None, None, None]
    assert keys.budgets == {}


def test_two_keys_may_be_one_tenants():
    """While one is being changed for the other."""
    keys = read_keys(f'[[key]]\nname = "a"\nsha256 = ["{A}", "{B}"]', "keys.toml")
    assert keys.name_of(b"pj-a") == keys.name_of(b"pj-b") == "a"


def test_budgets_are_in_whole_microjoules():
    """Joules may be written with a fraction; what is not said is no limit."""
    text = f'[[key]]\nname = "a"\nsha256 = "{A}"\ninterval_s = 3600\njoules = 1.5\ntokens = 7\n'
    assert read_keys(text, "keys.toml").budgets == {"a": Budget(3600, None, 7, 1_500_000)}


def test_an_entry_lets_its_key_in():
    """What `perjoule key` prints is what the file needs."""
    assert read_keys(entry_for("a", "pj-a"), "keys.toml").name_of(b"pj-a") == "a"


GOOD = f'[[key]]\nname = "a"\nsha256 = "{A}"\n'


@pytest.mark.parametrize(("text", "said"), [
    ("", "keys.toml: got no keys, expected at least one"),
    ("key = 3", "keys.toml: got no keys, expected at least one"),
    ("key = [3]", r"keys.toml, key 1: key: got 3, expected a \[\[key\]\] table"),
    (GOOD + "x = }", "keys.toml: not TOML: .*line 4"),
    ("keys = 1\n" + GOOD, r"keys.toml: got 'keys', expected \[\[key\]\] tables and nothing else"),
    (GOOD + '\n# next\n[[key]]\nname = "b"\n', "keys.toml, line 6: sha256: got none, expected the 64 hex digits"),
    (GOOD + '[[key]]\nname = "b"\nsha256 = "pj-b"\n', "keys.toml, line 4: sha256: got 4 characters, expected the 64 hex digits"),
    (GOOD + '[[key]]\nname = "b"\nsha256 = []\n', "keys.toml, line 4: sha256: got a list, expected"),
    (GOOD + GOOD.replace('"a"', '"b"'), f"keys.toml, line 4: sha256: got {A[:8]}…, which is 'a''s"),
    (GOOD + GOOD.replace(A, B), "keys.toml, line 4: name: got 'a' a second time"),
    (GOOD.replace('"a"', '"a b"'), "keys.toml, line 1: name: got 'a b', expected 1 to 64 letters"),
    (GOOD.replace('"a"', r'"a\nb"'), r"keys.toml, line 1: name: got 'a\\nb', expected"),
    (GOOD + "token = 1", "keys.toml, line 1: token: got an unknown field, expected some of name, sha256, interval_s"),
    (GOOD + "tokens = 1", "keys.toml, line 1: interval_s: got None, expected whole seconds"),
    (GOOD + "interval_s = 60", "keys.toml, line 1: interval_s: got it alone"),
    (GOOD + "interval_s = 0\ntokens = 1", "keys.toml, line 1: interval_s: got 0, expected"),
    (GOOD + "interval_s = 60\ntokens = 1.5", "keys.toml, line 1: tokens: got 1.5, expected a whole number above 0"),
    (GOOD + "interval_s = 60\nrequests = true", "keys.toml, line 1: requests: got True, expected"),
    (GOOD + "interval_s = 60\njoules = nan", "keys.toml, line 1: joules: got nan, expected a number above 0"),
    (GOOD + "interval_s = 60\njoules = inf", "keys.toml, line 1: joules: got inf, expected"),
    (GOOD + "interval_s = 60\njoules = -1", "keys.toml, line 1: joules: got -1, expected"),
])
def test_a_bad_file_is_refused_with_line_and_reason(text, said):
    """Whoever wrote it can mend it from the message alone."""
    with pytest.raises(KeysError, match=said):
        read_keys(text, "keys.toml")


def test_a_key_in_the_place_of_its_hash_is_not_repeated():
    """The message goes to a log."""
    with pytest.raises(KeysError) as refused:
        read_keys(GOOD.replace(A, "pj-the-secret-itself"), "keys.toml")
    assert "secret" not in str(refused.value)
