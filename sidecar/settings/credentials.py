"""The secrets that the sidecar is given, read from where they are kept: the keys file, the engine's own key, the operator's token.

None is a plain setting: flags show in `ps`, and settings are shown when they change.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from perjoule.sidecar.access.doors import Doors
from perjoule.sidecar.access.keys import KeysError, read_keys
from perjoule.sidecar.http.addresses import Address, Tcp
from perjoule.sidecar.settings.config import Config, ConfigError
from perjoule.sidecar.settings.sources import PREFIX

LONGEST = 4096  # characters of a secret: more would not fit into a header that every server takes


@dataclass(frozen=True, slots=True)
class Credentials:
    """What they make: the doors for clients, the token that the operator's port asks for (None: it is on loopback, and open), and those
    that the source of energy, the sink of events and the source of carbon intensities ask for."""

    doors: Doors = field(default_factory=Doors)
    admin_token: str | None = field(default=None, repr=False)
    energy_token: str | None = field(default=None, repr=False)
    events_token: str | None = field(default=None, repr=False)
    grid_token: str | None = field(default=None, repr=False)


OPEN = Credentials()  # nobody is asked for anything


def load(config: Config, environ: Mapping[str, str]) -> Credentials:
    """Everything that `config` names, and the secrets that may be in the environment instead. Raises ConfigError."""
    upstream_key = _secret("upstream-key-file", config.upstream_key_file, PREFIX + "UPSTREAM_KEY", environ)
    admin_token = _secret("admin-token-file", config.admin_token_file, PREFIX + "ADMIN_TOKEN", environ)
    if admin_token is None and not is_of_this_host(config.address("admin")):
        raise ConfigError(f"--admin: got {config.admin}, which others can reach, expected a loopback address or a token for it "
                          f"(--admin-token-file or {PREFIX}ADMIN_TOKEN)")
    try:
        keys = read_keys(_text("keys", config.keys), config.keys) if config.keys else None
    except KeysError as error:
        raise ConfigError(f"--keys: {error}") from error
    return Credentials(Doors(keys, config.routes(), upstream_key), admin_token,
                       energy_token(config.energy_token_file, environ),
                       _secret("events-token-file", config.events_token_file, PREFIX + "EVENTS_TOKEN", environ),
                       _secret("grid-token-file", config.grid_token_file, PREFIX + "GRID_TOKEN", environ))


def energy_token(path: str, environ: Mapping[str, str]) -> str | None:
    """The token of a source of energy that is elsewhere, or of a meter, from its file, else from the environment. Raises ConfigError."""
    return _secret("energy-token-file", path, PREFIX + "ENERGY_TOKEN", environ)


def _secret(flag: str, path: str, variable: str, environ: Mapping[str, str]) -> str | None:
    """A secret from its file, else from its variable; spaces and line ends around it are not of it."""
    where, secret = (f"--{flag}: {path}", _text(flag, path)) if path else (variable, environ.get(variable, ""))
    secret = secret.strip()
    if not secret and not path:
        return None
    if not secret.isascii() or not secret.isprintable() or " " in secret or not 0 < len(secret) <= LONGEST:
        raise ConfigError(f"{where}: got {len(secret)} characters, expected a secret of 1 to {LONGEST} of printable ASCII without spaces")
    return secret


def _text(flag: str, path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise ConfigError(f"--{flag}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--{flag}: {path} is not text: {error.reason}") from error


def is_of_this_host(address: Address) -> bool:
    """Whether only this host can connect there: a unix socket, or a loopback address."""
    if not isinstance(address, Tcp):
        return True
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"
