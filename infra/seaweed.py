"""SeaweedFS closed to whoever has no key of it. Its S3 port asks for the bucket's keys. Behind it
lie a master, a volume server and a filer, each with a port for HTTP and one for gRPC, which by
themselves ask for nothing: they would read, write, delete, and give back what was deleted
(`?readDeleted=true`).

1. each of those ports, and the gRPC port of S3, speaks TLS, and talks to nobody without a
   certificate of an authority that was made for this one server; the authority's key is thrown
   away, so there is never another certificate
2. whoever has come through needs a token (JWT) too, under keys that only the server has
3. no web page of another origin is answered, no directory is told, no page of SeaweedFS's own is
   served

    python -m infra.seaweed DIRECTORY [--at PATH] make the files; --at: where the server will find
    them

DIRECTORY gets `security.toml` and what it names, each 0600. SeaweedFS looks for it where it is
started, before any other place; a variable WEED_* of its environment goes before what stands in it
(`without_settings`).
"""

import argparse
import datetime
import ipaddress
import secrets
import ssl
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flows.adapters.permissions import as_owner_only
from s3t_core.files import write_atomically

SECURITY = "security.toml"
AUTHORITY, CERTIFICATE, KEY = "authority.pem", "certificate.pem", "key.pem"
NOBODY = "https://nobody.invalid"
"""The one origin that is allowed: an empty list would be taken for all of them."""
CLOSED = (
    f"-s3.allowedOrigins={NOBODY}",
    f"-filer.allowedOrigins={NOBODY}",
    "-filer.disableHttp",
    "-s3.iam=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-master.telemetry=false",
)
"""Of the server's command line: what nothing here needs is off."""
COMPACTING_SECONDS = 60
COMPACTING = (
    "-master.garbageThreshold=0.000000001",
    f"-master.vacuumIntervalSeconds={COMPACTING_SECONDS}",
)
"""The server writes each volume anew, without what was deleted from it, so often; by itself it
would wait for 30 %."""
_GRPC = (
    "master",
    "volume",
    "filer",
    "s3",
    "client",
    "admin",
    "worker",
    "msg_broker",
    "msg_agent",
    "mq",
)
_HTTPS = ("master", "volume", "filer", "client")
_TOKENS = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
_YEARS = 20


def make_security(folder: Path, at: Path | None = None) -> None:
    """Write what closes the server, unless it is there. `at`: where the server will find it; by
    default, `folder`."""
    if (folder / SECURITY).exists():
        return
    as_owner_only(folder)
    authority, signing = _certificate(None)
    server, key = _certificate((authority, signing))
    files = {
        AUTHORITY: authority.public_bytes(serialization.Encoding.PEM),
        CERTIFICATE: server.public_bytes(serialization.Encoding.PEM),
        KEY: key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        SECURITY: _security(at or folder.resolve()).encode(),
    }  # last: with it, all are there
    for name, content in files.items():
        write_atomically(folder / name, content, 0o600)


def client_context(folder: Path) -> ssl.SSLContext:
    """What an HTTPS client of the server's own ports needs: its certificate, its key, its
    authority."""
    context = ssl.create_default_context(cafile=folder / AUTHORITY)
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    return context


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which nothing goes before `security.toml`."""
    return {k: v for k, v in environment.items() if not k.startswith("WEED_")}


def _security(at: Path) -> str:
    """security.toml: SeaweedFS's own names for rules 1 to 3."""
    pair = f'cert = "{at / CERTIFICATE}"\nkey = "{at / KEY}"\n'
    authority = f'ca = "{at / AUTHORITY}"\n'
    parts = [
        f'[cors.allowed_origins]\nvalues = "{NOBODY}"\n',
        "[access]\nui = false\n",
        "[filer.expose_directory_metadata]\nenabled = false\n",
        f"[grpc]\n{authority}",
    ]
    parts += [f"[grpc.{name}]\n{pair}" for name in _GRPC]
    parts += [
        f"[https.{name}]\n{'enabled = true' if name == 'client' else ''}\n{pair}{authority}"
        for name in _HTTPS
    ]
    parts += [f'[{name}]\nkey = "{secrets.token_hex(32)}"\n' for name in _TOKENS]
    return "\n".join(parts)


_Authority = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _certificate(issuer: _Authority | None) -> _Authority:
    """A certificate and its key: an authority's, or, where there is an `issuer`, the server's and
    its client's."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server" if issuer else "authority")])
    made = x509.CertificateBuilder(
        issuer_name=issuer[0].subject if issuer else name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=365 * _YEARS),
    )
    made = made.add_extension(
        x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True
    )
    if issuer:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = made.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return made.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def main() -> None:
    """Read the command line."""
    options = argparse.ArgumentParser(
        prog="infra.seaweed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("directory", type=Path)
    options.add_argument("--at", type=Path)
    given = options.parse_args()
    make_security(given.directory, given.at)
    print(f"{given.directory / SECURITY} is there, with what it names")


if __name__ == "__main__":
    main()
