"""The certificate of a server that only this machine's commands talk to: made anew at each start,
beside what else the server has of its own.

A port of the loopback address is anybody's as soon as the process behind it is gone, and another
user of the machine may wait for that. So a credential is not enough: it would be told to whoever
answers next, and his answers would be carried out. Whoever holds `server.crt` (0600, in a directory
of its owner's alone) talks to who holds the key beside it, or to nobody.

It is good for ever (RFC 5280, 4.1.2.5): a clock that runs off must not part commands from their
server, and the next start makes another.
"""

from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from s3t_core.files import write_atomically

CERTIFICATE, KEY = "server.crt", "server.key"
_FROM = datetime(2000, 1, 1, tzinfo=UTC)
_UNTIL = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def make_own_certificate(home: Path, address: str) -> tuple[Path, Path]:
    """A key and a certificate for this address of this machine, in `home`: their paths. Raises
    StorageError."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "s3t")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomically(home / KEY, pem, 0o600)
    write_atomically(home / CERTIFICATE, made.public_bytes(Encoding.PEM), 0o600)
    return home / CERTIFICATE, home / KEY
