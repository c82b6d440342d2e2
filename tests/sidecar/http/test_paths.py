"""What path a target names: the same that any server would read, or none."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perjoule.sidecar.http import paths
from perjoule.sidecar.http.paths import origin_form, path_of


@pytest.mark.parametrize(("target", "path"), [
    ("/v1/models", "/v1/models"), ("/v1/models/", "/v1/models"), ("/v1/models?a=/../b", "/v1/models"), ("/", ""), ("/?x", ""),
    ("/v1/%6dodels", "/v1/models"), ("/v1/models/org%2Fname-1.5_B", "/v1/models/org/name-1.5_B"),
    ("/v1/models/..hidden", "/v1/models/..hidden"),
])
def test_a_plain_target_names_its_path(target, path):
    """Percent-decoded once, without query, without one trailing slash."""
    assert path_of(target) == path


@pytest.mark.parametrize("target", [
    "", "*", "a:80", "v1", "//v1", "/v1//models", "/v1/./models", "/v1/../metrics", "/v1/%2e%2e/metrics", "/v1/..", "/v1/models//",
    "/%2Fv1", "/v1/..;/metrics", "/metrics;a=b", "/v1\\metrics", "/%5cmetrics", "/%256detrics", "/metrics%00", "/metrics%0a",
    "/metrics%3Fa", "/metrics#a", "/metrics%23", "/%ff", "/m\u00e9trics", "/metrics ", "/metrics%20", "/%", "/%6", "/%zz", "/...",
])
def test_a_target_that_can_be_read_in_two_ways_names_none(target):
    """Nothing is guessed."""
    assert path_of(target) is None


@pytest.mark.parametrize(("target", "origin"), [
    ("/a?b", "/a?b"), ("http://h/a?b", "/a?b"), ("HTTP://u@h:1/a", "/a"), ("http://h", "/"), ("http://h?x=/metrics", "/?x=/metrics"),
    ("http://h#/metrics", "/#/metrics"), ("http://h//a", "//a"), ("*", "*"), ("h:443", "h:443"), ("/a://b/c", "/a://b/c"),
])
def test_an_absolute_target_loses_its_authority(target, origin):
    """What goes to the engine is what the decision was made by, whatever stands behind the authority."""
    assert origin_form(target) == origin


@given(st.text(alphabet="/.%2eE5cCfF;?#\\metrics:@ \x00é", max_size=40))
@example("http://h?x=/metrics")
def test_a_path_has_one_reading(target):
    """Decoding again, merging slashes, taking out dots, cutting parameters: nothing makes another path of it."""
    path = path_of(target)
    if path is not None:
        assert not set(path) & set("%;?#\\ \x00é")
        assert "//" not in path
        assert not {".", ".."} & set(path.split("/"))
        assert path_of(path or "/") == path


def test_clients_cannot_fill_the_memory_with_targets():
    """So many are remembered and no more, none of them long; one that is known has the same path as when it was new."""
    long = "/" + "a" * paths.REMEMBERED_CHARS
    targets = [*(f"/v1/models/{number}" for number in range(3 * paths.MOST_REMEMBERED)), long, "/a//b", "/"]
    assert [path_of(target) for target in targets] == [*targets[:-2], None, ""]
    assert [path_of(target) for target in targets[-3:]] == [long, None, ""]
    assert len(paths._REMEMBERED) <= paths.MOST_REMEMBERED
    assert long not in paths._REMEMBERED
