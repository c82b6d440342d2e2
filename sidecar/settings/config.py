"""Every setting there is: what it means, what it is if nothing is said, and what it may be.

Each is one field of `Config`; its flag, variable and key follow from its name (`ledger_days` is `--ledger-days`,
`PERJOULE_LEDGER_DAYS` and `ledger_days = 30`); `settings` reads them.
"""

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perjoule.sidecar.access.doors import Routes, read_routes
from perjoule.sidecar.http import tls
from perjoule.sidecar.http.addresses import Address, Origin, Unix, leads_to, read_address, read_origin
from perjoule.sidecar.metering.pools import Pools, read_pools
from perjoule.sidecar.metering.weighing import METHODS

BOUNDS = {"max_num_seqs": (0, 1_000_000), "poll_ms": (1, 1000), "ledger_days": (1, 36_500), "ledger_mb": (1, 10_000_000),
          "ledger_minute_days": (1, 36_500), "ledger_hour_days": (1, 36_500),
          "workers": (1, 1024), "max_body_mb": (1, 100_000), "connect_timeout_s": (0.001, 3600.0),
          "slow_reader_s": (0.001, 86_400.0), "slow_sender_s": (0.001, 86_400.0), "max_connections": (0, 10_000_000),
          "job_hours": (0.001, 8760.0),
          "unready_s": (0.0, 3600.0), "drain_s": (0.0, 86_400.0)}


class ConfigError(ValueError):
    """A setting that cannot be used; the text names where it came from, what was got and what was expected."""


def setting(default: Any, text: str, *, choices: Sequence[str] = (), metavar: str | None = None) -> Any:
    """A field of Config with what its flag needs."""
    return field(default=default, metadata={"help": text, "choices": tuple(choices), "metavar": metavar})


@dataclass(frozen=True, slots=True)
class Config:
    """Everything `perjoule serve` can be told."""

    upstream: str = setting("", "the inference server to stand in front of", metavar="URL")
    listen: str = setting("127.0.0.1:9000", "where clients connect", metavar="HOST:PORT|unix:PATH")
    admin: str = setting("127.0.0.1:9464", "the operator's port: /metrics /livez /readyz /energy", metavar="HOST:PORT|unix:PATH")
    socket_mode: str = setting("660", "permissions of unix sockets that are listened on, in octal", metavar="MODE")
    tls_cert: str = setting("", "certificate chain (PEM) for clients; they then connect with TLS", metavar="FILE")
    tls_key: str = setting("", "its key (PEM, without a passphrase)", metavar="FILE")
    tls_client_ca: str = setting("", "authorities (PEM); clients must then have a certificate of one of them", metavar="FILE")
    upstream_tls_ca: str = setting("", "authorities (PEM) by which the engine is known, instead of the system's", metavar="FILE")
    upstream_tls_cert: str = setting("", "certificate chain (PEM) that is presented to the engine", metavar="FILE")
    upstream_tls_key: str = setting("", "its key (PEM, without a passphrase)", metavar="FILE")
    upstream_tls_insecure: bool = setting(False, "believe any certificate of the engine's: whoever is between can read and change all")
    keys: str = setting("", "TOML file of the API keys that clients may use; without it nobody is asked for one", metavar="FILE")
    allow_routes: str = setting("", "with --keys: paths that are open to clients beside the API", metavar="PATH,…")
    upstream_key_file: str = setting("", "file with the engine's own API key, which clients need not know", metavar="FILE")
    admin_token_file: str = setting("", "file with the token that the operator's port asks for", metavar="FILE")
    engine: str = setting("auto", "the upstream's dialect", choices=(
        "auto", "vllm", "sglang", "tgi", "transformers", "llamacpp", "vllm-omni", "sglang-diffusion", "diffusion", "comfyui", "openai"))
    steps: str = setting("", "where perjoule[vllm], installed beside vLLM, tells of each step of the engine", metavar="unix:PATH")
    energy: str = setting("auto", "auto | nvml | zeus | rapl | meter:HOST:PORT | dcgm:URL | zeusd:URL | triton:URL | trtllm:URL | "
                          "replay:FILE | simulated[:URL]", metavar="SOURCE")
    energy_token_file: str = setting("", "file with the token that a source elsewhere asks for", metavar="FILE")
    energy_tls_ca: str = setting("", "authorities (PEM) by which a source elsewhere is known, instead of the system's", metavar="FILE")
    gpus: str = setting("all", "the boards that serve this engine: one group, a group for each data-parallel rank (0=UUID,…;1=UUID,…), "
                        "or for each stage (prefill=UUID,…;decode=UUID,…)", metavar="all|UUID,…|0=UUID,…;1=…")
    method: str = setting("step-model", "how a window is divided", choices=METHODS)
    max_num_seqs: int = setting(0, "the engine's largest batch, for steady-state marking (0: not known)", metavar="N")
    poll_ms: int = setting(20, "how often the energy counter is read", metavar="MS")
    headers: bool = setting(True, "X-Energy-* headers on answers that are not streamed")
    comment: bool = setting(True, "the `: energy {json}` comment at the end of streams")
    trailers: bool = setting(True, "X-Energy-* trailers for clients that send `TE: trailers`")
    ask_usage: bool = setting(True, "ask the engine for usage in streams, and hide it from clients who did not ask")
    ledger: str = setting("auto", "SQLite file or PostgreSQL database for records; off keeps none; auto is in the state folder",
                          metavar="FILE|postgresql://…|off")
    ledger_days: int = setting(30, "records older than this are dropped", metavar="DAYS")
    ledger_mb: int = setting(1024, "the oldest records are dropped beyond this size", metavar="MB")
    ledger_minute_days: int = setting(7, "sums by minute older than this are dropped", metavar="DAYS")
    ledger_hour_days: int = setting(400, "sums by hour older than this are dropped; those by day stay", metavar="DAYS")
    calibrations: str = setting("auto", "folder for what the step model has learned; off keeps none; auto is in the state folder",
                                metavar="FOLDER|off")
    otlp: str = setting("", "OTLP endpoint for spans and metrics, http(s)://host:4318 or grpc(s)://host:4317", metavar="URL")
    events: str = setting("", "HTTP sink that gets a CloudEvent for each request, as OpenMeter's https://HOST/api/v1/events", metavar="URL")
    events_token_file: str = setting("", "file with the token that the sink asks for", metavar="FILE")
    grid: str = setting("", "carbon intensity of the grid, kept in the ledger: fixed:G_PER_KWH | file:PATH | electricitymaps:ZONE | "
                        "watttime:REGION", metavar="SOURCE")
    grid_token_file: str = setting("", "file with the token of Electricity Maps, or USER:PASSWORD of WattTime", metavar="FILE")
    workers: int = setting(1, "processes that share the port", metavar="N")
    max_body_mb: int = setting(64, "request bodies larger than this are refused with 413", metavar="MB")
    connect_timeout_s: float = setting(5.0, "how long to wait for the engine to accept a connection", metavar="S")
    slow_reader_s: float = setting(30.0, "a client that takes nothing for this long is cut off", metavar="S")
    slow_sender_s: float = setting(30.0, "a client whose request takes longer than this to come is cut off", metavar="S")
    max_connections: int = setting(0, "clients at a time, for each worker (0: half of the files it may have open)", metavar="N")
    job_hours: float = setting(24.0, "how long a job (a video, a ComfyUI prompt) is waited for after its request was answered", metavar="H")
    unready_s: float = setting(0.0, "how long /readyz says no after SIGTERM while clients are still taken", metavar="S")
    drain_s: float = setting(30.0, "how long running requests may go on after that", metavar="S")
    log_level: str = setting("info", "what goes to standard error", choices=("debug", "info", "warning", "error"))

    def address(self, name: str) -> Address:
        """`listen` or `admin`. Raises ConfigError."""
        try:
            return read_address(getattr(self, name))
        except ValueError as error:
            raise ConfigError(f"--{name}: {error}") from error

    def steps_path(self) -> str:
        """The unix socket that `steps` names, "" for none. Raises ConfigError."""
        if not self.steps:
            return ""
        try:
            address = read_address(self.steps)
        except ValueError as error:
            raise ConfigError(f"--steps: {error}") from error
        if not isinstance(address, Unix):
            raise ConfigError(f"--steps: got {self.steps!r}, expected unix:PATH")
        return address.path

    def origin(self) -> Origin:
        """`upstream`. Raises ConfigError."""
        try:
            return read_origin(self.upstream)
        except ValueError as error:
            raise ConfigError(f"--upstream: {error}") from error

    def front_tls(self) -> ssl.SSLContext | None:
        """TLS towards clients, read from its files now; None without. Raises ConfigError."""
        try:
            return tls.server_context(self.tls_cert, self.tls_key, self.tls_client_ca)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def upstream_tls(self) -> ssl.SSLContext | None:
        """TLS towards the engine, read from its files now; None for an upstream that is not https. Raises ConfigError."""
        files = self.upstream_tls_ca, self.upstream_tls_cert, self.upstream_tls_key
        if not self.origin().tls:
            if any(files) or self.upstream_tls_insecure:
                raise ConfigError(f"--upstream: got {self.upstream!r} and --upstream-tls-*, expected https://HOST:PORT")
            return None
        try:
            return tls.client_context(*files, insecure=self.upstream_tls_insecure)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def routes(self) -> Routes:
        """What `allow_routes` says. Raises ConfigError."""
        try:
            return read_routes(self.allow_routes)
        except ValueError as error:
            raise ConfigError(f"--allow-routes: {error}") from error

    def pools(self) -> Pools:
        """What `gpus` says. Raises ConfigError."""
        try:
            return read_pools(self.gpus)
        except ValueError as error:
            raise ConfigError(f"--gpus: {error}") from error

    def checked(self) -> "Config":
        """Itself, if every setting can be used. Raises ConfigError."""
        self._check_upstream()
        self.address("admin")
        self.steps_path()
        self.front_tls()
        self.upstream_tls()
        if not re.fullmatch("0?[0-7]{3}", self.socket_mode):
            raise ConfigError(f"--socket-mode: got {self.socket_mode!r}, expected octal permissions, e.g. 660")
        self.pools()
        self.routes()
        for name, (least, most) in BOUNDS.items():
            if not least <= getattr(self, name) <= most:  # refuses NaN, too
                raise ConfigError(f"--{name.replace('_', '-')}: got {getattr(self, name)}, expected {least} to {most}")
        return self

    def _check_upstream(self) -> None:
        if not self.upstream:
            raise ConfigError("--upstream is required: the inference server to stand in front of, http://HOST:PORT")
        if leads_to(self.origin().address, self.address("listen")):
            raise ConfigError(f"--upstream: got {self.upstream!r}, which is where this sidecar itself would listen")
