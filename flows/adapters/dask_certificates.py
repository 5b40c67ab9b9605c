"""Makes what a Dask cluster and its clients know each other by.

    python -m flows.adapters.dask_certificates DIR [HOST ...]

1. DIR/authority  the authority that signs the others. Kept when the command runs again, which
   renews the others; for another, begin another directory. It belongs on no machine of the cluster
2. DIR/cluster    for the scheduler and the workers: for both ends of a connection, on loopback
                  addresses and HOST ...
3. DIR/client     for who submits jobs. It cannot stand for a scheduler or a worker: it is for the
                  calling end only

Each of the last two has a `dask.yaml`, Dask's own configuration: DASK_CONFIG=DIR/cluster and
DASK_CONFIG=DIR/client are all that is to be set. It names the files by their path, so copy a
directory to the same path on another machine. Keys are 0600 in 0700. Whoever has one of these keys
runs code on every worker: one authority serves one team.
"""

import argparse
import ipaddress
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from s3t_core.errors import S3TError, WorkspaceError
from s3t_core.files import read_regular, write_atomically

AUTHORITY, CLUSTER, CLIENT = "authority", "cluster", "client"
_AUTHORITY_DAYS = 5 * 365
_DAYS = 397
_CLOCKS = timedelta(minutes=10)
"""By how much a machine's clock may be behind."""
_BOTH_ENDS = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_CALLING_END = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_CLUSTER_SETTINGS = """distributed:
  comm:
    require-encryption: true
    default-scheme: tls
    tls:
      ca-file: {folder}/authority.pem
      scheduler: {{cert: {folder}/cluster.pem, key: {folder}/cluster.key}}
      worker: {{cert: {folder}/cluster.pem, key: {folder}/cluster.key}}
  # neither keeps the last messages that it sent: tasks are in them, with the addresses of data files
  admin: {{low-level-log-length: 0}}
  # the HTTP server of each asks for no credential: it has no pages
  scheduler: {{http: {{routes: []}}}}
  worker:
    http: {{routes: []}}
    # results stay in memory: a killed worker leaves none on a disk
    memory: {{target: false, spill: false}}
"""  # noqa: E501
_CLIENT_SETTINGS = """distributed:
  comm:
    require-encryption: true
    default-scheme: tls
    tls:
      ca-file: {folder}/authority.pem
      client: {{cert: {folder}/client.pem, key: {folder}/client.key}}
"""

_Signer = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


def make_certificates(folder: Path, hosts: list[str]) -> None:
    """The three directories. Raises WorkspaceError for a damaged authority, StorageError."""
    folder = folder.resolve()
    for each in (folder, *(folder / name for name in (AUTHORITY, CLUSTER, CLIENT))):
        each.mkdir(parents=True, exist_ok=True)
        each.chmod(0o700)
    signer = _authority(folder / AUTHORITY)
    _issue(folder / CLUSTER, CLUSTER, signer, [*_LOOPBACK, *hosts], _BOTH_ENDS)
    _issue(folder / CLIENT, CLIENT, signer, [], _CALLING_END)
    for name, settings in ((CLUSTER, _CLUSTER_SETTINGS), (CLIENT, _CLIENT_SETTINGS)):
        write_atomically(
            folder / name / "dask.yaml", settings.format(folder=folder / name).encode(), 0o600
        )


def _authority(folder: Path) -> _Signer:
    """The one that is there, or a new one."""
    key_file, certificate_file = folder / "authority.key", folder / "authority.pem"
    if key_file.exists() or certificate_file.exists():
        try:
            key = serialization.load_pem_private_key(read_regular(key_file), None)
            certificate = x509.load_pem_x509_certificate(read_regular(certificate_file))
        except (OSError, ValueError):
            raise WorkspaceError(
                "expected authority.key and authority.pem as this command wrote them, got damaged "
                "or missing ones; restore them, or begin another directory"
            ) from None
        if (
            not isinstance(key, ec.EllipticCurvePrivateKey)
            or key.public_key() != certificate.public_key()
        ):
            raise WorkspaceError(
                "expected authority.key to be the key of authority.pem, got another; restore it, "
                "or begin another directory"
            )
        return key, certificate
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named(AUTHORITY)
    certificate = (
        _begun(name, name, key, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(key_file, _pem(key))
    _write(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
    return key, certificate


def _issue(
    folder: Path,
    name: str,
    signer: _Signer,
    hosts: list[str],
    ends: tuple[x509.ObjectIdentifier, ...],
) -> None:
    """A key and its certificate, beside the authority's certificate."""
    by, authority = signer
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _begun(_named(name), authority.subject, key, _DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(ends), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
        )
    )
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False
        )
    _write(folder / f"{name}.key", _pem(key))
    _write(
        folder / f"{name}.pem",
        builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
    )
    _write(folder / "authority.pem", authority.public_bytes(serialization.Encoding.PEM))


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _named(role: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"s3t dask {role}")])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise WorkspaceError(
            "expected host names of ASCII letters, or addresses, got another; write a name as DNS "
            "has it"
        ) from None


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    write_atomically(path, data, 0o600)


def main() -> None:
    """Make them, and say what to set. Prints no secret."""
    options = argparse.ArgumentParser(prog="dask_certificates", allow_abbrev=False)
    options.add_argument("dir", type=Path)
    options.add_argument("hosts", nargs="*", metavar="HOST")
    given = options.parse_args()
    os.umask(0o077)
    try:
        make_certificates(given.dir, given.hosts)
    except S3TError as error:
        print(f"dask certificates: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    folder = given.dir.resolve()
    print(f"scheduler and workers: DASK_CONFIG={folder / CLUSTER}")  # noqa: T201
    print(f"who submits jobs:      DASK_CONFIG={folder / CLIENT}")  # noqa: T201
    print(f"keep apart:            {folder / AUTHORITY}")  # noqa: T201


if __name__ == "__main__":
    main()
