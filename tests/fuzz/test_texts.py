"""Settings and headers that nobody should write: read, or refused with the error that is documented for them."""

import pytest
from hypothesis import given

from tests.fuzz.inputs import texts as inputs
from tests.fuzz.properties import texts


@given(inputs.traceparents)
def test_traceparent(header):
    """Only a valid context is one."""
    texts.traceparent_is_read(header)


@given(inputs.pools)
def test_pools(text):
    """`--gpus` is boards in pools, or a ValueError."""
    texts.pools_are_read(text)


@given(inputs.addresses)
def test_addresses(text):
    """`--listen` is an address, or a ValueError."""
    texts.address_is_read(text)


@given(inputs.origins)
def test_origins(text):
    """`--upstream` is an origin, or a ValueError."""
    texts.origin_is_read(text)


@given(inputs.targets)
def test_paths(target):
    """A request target has a plain path, or none."""
    texts.path_is_plain(target)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Where settings are written before they are read."""
    return tmp_path_factory.mktemp("settings") / "perjoule.toml"


@given(toml=inputs.toml, environ=inputs.environments)
def test_settings(toml, environ, file):
    """A file and an environment are a Config, or a ConfigError."""
    texts.settings_are_read(toml, environ, file)


@given(inputs.keys)
def test_keys(text):
    """A keys file is keys, or a KeysError."""
    texts.keys_are_read(text)
