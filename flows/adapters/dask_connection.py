"""The connection to a Dask cluster: TLS at both ends, under an authority of the operator's own.

Whoever reaches a scheduler runs code on its workers (`Client.run`). So it asks for a certificate,
and so do workers. The files are named by Dask's own configuration (DASK_CONFIG, or
DASK_DISTRIBUTED__COMM__TLS__*), not by s3t.toml: their paths differ from machine to machine, and
`dask scheduler`, `dask worker` and other clients read the same settings.
"""

import ipaddress
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from s3t_core.errors import WorkspaceError

if TYPE_CHECKING:
    from distributed import Client
    from distributed.security import Security

_MADE = "`python -m flows.adapters.dask_certificates DIR` makes all of it"


def connect(address: str, plain_on_loopback: bool, timeout: float) -> "Client":
    """A client of the scheduler at `address`. Raises WorkspaceError where none answers, where it
    would be asked without TLS, and where what TLS needs is missing.

    `plain_on_loopback`: the operator vouches for every process and user of this machine, so tcp://
    to a loopback address will do."""
    try:
        from distributed import Client
    except ImportError:
        raise WorkspaceError(
            'expected the package distributed for [runner] kind = "dask"; install s3t[dask]'
        ) from None
    security = security_for(address, plain_on_loopback)
    try:
        return Client(address, timeout=timeout, set_as_default=False, security=security)
    except (OSError, TimeoutError):
        raise WorkspaceError(
            "expected a Dask scheduler at [runner] address that takes this certificate and shows "
            "one of the same authority, got none; start it with `dask scheduler`, correct the "
            f"address, or set DASK_CONFIG to the client's directory: {_MADE}"
        ) from None


def security_for(address: str, plain_on_loopback: bool) -> "Security":
    """How a connection to `address` is secured, by Dask's own configuration. Raises
    WorkspaceError."""
    from distributed.security import Security

    scheme = urlsplit(address).scheme
    if scheme == "tcp" and plain_on_loopback and _is_loopback(address):
        return Security(require_encryption=False)
    if scheme != "tls":
        raise WorkspaceError(
            f'expected [runner] address = "tls://HOST:PORT", got one that begins with {scheme!r}: '
            "whoever reaches a scheduler without TLS runs code on its workers. Start scheduler and "
            f"workers with certificates ({_MADE}); on a loopback address, for processes and users "
            "of this machine that you all trust, [runner] plain_tcp_on_loopback = true"
        )
    security = Security(require_encryption=True)
    files = security.get_tls_config_for_role("client")
    missing = [name for name in ("ca_file", "cert", "key") if not files[name]]
    if missing:
        raise WorkspaceError(
            "expected Dask's configuration to name the authority, this client's certificate and "
            f"its key, got none for {', '.join(missing)}; set DASK_CONFIG to the client's "
            f"directory: {_MADE}"
        )
    for name in ("ca_file", "cert", "key"):
        _check_file(Path(files[name]), is_secret=name == "key")
    return security


def _is_loopback(address: str) -> bool:
    """Whether the host is a loopback address, as a number: a name may lead elsewhere."""
    try:
        return ipaddress.ip_address(urlsplit(address).hostname or "").is_loopback
    except ValueError:
        return False


def _check_file(path: Path, is_secret: bool) -> None:
    try:
        mode = path.stat().st_mode
        readable = stat.S_ISREG(mode) and os.access(path, os.R_OK)
    except OSError:
        mode, readable = 0, False
    if not readable:
        raise WorkspaceError(
            f"expected Dask's configuration to name files that can be read, got {path.name}, which "
            f"cannot; set DASK_CONFIG to the client's directory: {_MADE}"
        )
    if is_secret and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise WorkspaceError(
            f"expected {path.name} to be readable by its owner only, got mode "
            f"{stat.filemode(mode)}; others may have it and run code on the workers: make new "
            f"certificates under a new authority ({_MADE})"
        )
