"""Two authorities and what they have signed, as files: one is ours, the other a stranger's."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAMES = "127.0.0.1", "::1", "localhost"


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files in one folder; an authority's file is its name with `.pem`, a certificate's is `.pem` and `.key`."""

    folder: Path

    def __call__(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def front(self) -> dict[str, str]:
        """Settings of a front with TLS."""
        return {"tls_cert": self("server.pem"), "tls_key": self("server.key")}

    @property
    def upstream(self) -> dict[str, str]:
        """Settings for an engine whose certificate is signed by our authority."""
        return {"upstream_tls_ca": self("ca.pem")}

    @property
    def upstream_mutual(self) -> dict[str, str]:
        """The same, with a certificate of our own."""
        return self.upstream | {"upstream_tls_cert": self("client.pem"), "upstream_tls_key": self("client.key")}


def make_certificates(folder: Path) -> Certificates:
    """`ca` signed `server`, `elsewhere` (for another host) and `client`; `other` signed `stranger`; `expired` is an authority that was."""
    ours, other = trustme.CA(), trustme.CA(organization_name="other")
    for name, authority in (("ca", ours), ("other", other)):
        authority.cert_pem.write_to_path(folder / f"{name}.pem")
    for name, authority, hosts in (("server", ours, NAMES), ("elsewhere", ours, ("elsewhere.example",)), ("client", ours, ("client",)),
                                   ("stranger", other, NAMES)):
        issued = authority.issue_cert(*hosts)
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(folder / f"{name}.pem", append=number > 0)
    (folder / "expired.pem").write_bytes(_expired_authority())
    key = serialization.load_pem_private_key((folder / "server.key").read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"passphrase")
    (folder / "locked.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    (folder / "garbage.pem").write_text("this is no certificate")
    return Certificates(folder)


def _expired_authority() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    begun, ended = (datetime.now(UTC) - timedelta(days=days) for days in (9, 1))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "expired")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begun, ended)
    signed = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)
