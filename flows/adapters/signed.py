"""Objects by addresses that somebody with the bucket's key has signed: each of one object, to read,
for a while.

So a worker needs no key of the bucket. Whoever reads such an address may read that object until
then, or until it is destroyed: it goes into no log and no error.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import requests

from s3t_core.errors import StorageError

_WAIT = (10, 120)
_OK, _GONE = 200, 404


class AddressRefused(StorageError):
    """An address that has run out, or whose signer may not read."""


@dataclass(frozen=True, repr=False)
class SignedBlobs:
    """Objects that can be read, by name. Fills the port `Blobs`."""

    addresses: Mapping[str, str]

    def read(self, name: str) -> bytes | None:
        """The object's bytes. Raises StorageError for one of which there is no address."""
        if name not in self.addresses:
            raise StorageError(
                "expected the address of each stage that a job reads, got none for one; run the "
                "command again"
            )
        with _asked(self.addresses[name]) as answer:
            return None if answer.status_code == _GONE else bytes(answer.content)

    def write(self, name: str, data: bytes) -> None:  # noqa: ARG002
        """Raises StorageError."""
        raise StorageError("expected nothing to be written from a worker")

    def write_new(self, name: str, data: bytes) -> bool:  # noqa: ARG002
        """Raises StorageError."""
        raise StorageError("expected nothing to be written from a worker")

    def remove(self, name: str) -> None:  # noqa: ARG002
        """Raises StorageError."""
        raise StorageError("expected nothing to be removed from a worker")

    def names(self) -> Iterable[str]:
        """Those that can be read."""
        return sorted(self.addresses)


def signed_fetch(address: str, path: Path) -> bool:
    """Bring an object to a file; False when it is gone. Raises StorageError."""
    with _asked(address) as answer:
        if answer.status_code == _GONE:
            return False
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(answer.raw, file)
        except Exception as error:  # urllib3 has errors of its own, which quote the address
            raise _unreachable(error) from None
    return True


def _asked(address: str) -> requests.Response:
    """The bucket's answer: 200 or 404."""
    try:
        answer = requests.get(address, timeout=_WAIT, stream=True)
    except requests.RequestException as error:
        raise _unreachable(error) from None
    if answer.status_code not in (_OK, _GONE):
        raise AddressRefused(
            f"the bucket refused a worker ({answer.status_code}): the address that its task "
            "brought may have run out, or may not be reached as it is signed; run the command again"
        )
    return answer


def _unreachable(error: Exception) -> StorageError:
    return StorageError(
        f"a worker could not reach the bucket ({type(error).__name__}); check that "
        "AWS_ENDPOINT_URL of who submits jobs is an address that workers reach too, then run the "
        "command again"
    )
