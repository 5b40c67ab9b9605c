"""How a command of the operator's asks the HTTP door of its workspace, and is known there.

Whoever opens a door says in `.s3t/door.json`, for the owner alone, under what name it is asked and
a secret by which it knows the operator's own commands: for answers of the model, and for as long as
it lives. What a command sends goes by a socket in `.s3t`, `door.sock`, where nobody but the owner
can listen: not by a port, which is anybody's once the door is killed, and another machine's where
the directory is shared. A socket that a killed one left leads nowhere.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.adapters.credentials import new_secret, read_private
from flows.adapters.locks import workspace_lock
from s3t_core.errors import Busy, S3TError
from s3t_core.files import remove_file, write_atomically

DOOR, DOOR_LOCK, DOOR_SOCKET = "door.json", "door.lock", "door.sock"
_PREDICT = "/api/v1/predict"
_CONNECT_SECONDS, _ANSWER_SECONDS = 1.0, 120.0
_BACKLOG = 64


class OwnDoor:
    """A door that commands find. `secret` is "" and `socket` None where another one of this
    workspace is found, or none can be."""

    def __init__(
        self,
        state_dir: Path,
        bound: socket.socket | None = None,
    ) -> None:
        self._place, self.socket = state_dir / DOOR, bound
        self.secret = new_secret() if bound else ""

    def leave(self) -> None:
        """Nobody is sent there any more; a directory that another was put in the place of stays as
        it is."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, S3TError):
            if json.loads(read_private(self._place))["secret"] != self.secret:
                return
        remove_file(self._place)
        remove_file(self._place.with_name(DOOR_SOCKET))

    def say(
        self,
        port: int,
    ) -> None:
        """It answers from now on, to whom asks for this port of the loopback address."""
        if self.secret:
            document = {"host": f"127.0.0.1:{port}", "secret": self.secret}
            write_atomically(self._place, json.dumps(document).encode(), 0o600)


@contextlib.contextmanager
def own_door(
    state_dir: Path,
    says: bool,
) -> Iterator[OwnDoor]:
    """One that is about to be opened; `says`: whether commands are to find it. When the block ends
    nobody is sent there any more."""
    with contextlib.ExitStack() as held:
        try:
            if not says:
                raise Busy("nobody is to find it")
            held.enter_context(workspace_lock(state_dir / DOOR_LOCK))
            for left in (DOOR, DOOR_SOCKET):  # of one that was killed
                remove_file(state_dir / left)
            door = OwnDoor(state_dir, held.enter_context(_bound(state_dir)))
            held.callback(door.leave)
        except (Busy, OSError):
            door = OwnDoor(state_dir)
        yield door


@contextlib.contextmanager
def _bound(state_dir: Path) -> Iterator[socket.socket]:
    """A socket in the directory that listens, for its owner. Raises OSError where the file system
    has none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        with _short(state_dir / DOOR_SOCKET) as path:
            bound.bind(path)
        os.chmod(state_dir / DOOR_SOCKET, 0o600)
        bound.listen(_BACKLOG)
        yield bound


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the file that fits into a socket's address (unix(7): 108 bytes), however deep its
    directory lies."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        there = f"/proc/self/fd/{folder}"
        yield f"{there}/{path.name}" if Path(there).is_dir() else str(path)
    finally:
        os.close(folder)


def ask_own_door(
    state_dir: Path, asked: Mapping[str, object], params: Mapping[str, object]
) -> list[Any] | None:
    """What the model answers there; None where no door of this workspace is open, or where it has
    no answer: then whoever asks loads the model, and hears what is wrong. `asked`: `texts` or
    `pairs`."""
    import httpx

    try:
        said = json.loads(read_private(state_dir / DOOR))
        headers = {"authorization": f"Bearer {said['secret']}", "host": str(said["host"])}
        waits = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
        with (
            _short(state_dir / DOOR_SOCKET) as path,
            httpx.Client(
                transport=httpx.HTTPTransport(uds=path),
                trust_env=False,
                timeout=waits,
                headers=headers,
            ) as client,
        ):
            response = client.post(f"http://localhost{_PREDICT}", json={**asked, **params})
        answers = response.json()["answers"] if response.status_code == httpx.codes.OK else None
    except (OSError, ValueError, LookupError, TypeError, S3TError, httpx.HTTPError):
        return None
    return answers if isinstance(answers, list) and len(answers) == _count(asked) else None


def _count(asked: Mapping[str, object]) -> int:
    return sum(len(each) for each in asked.values() if isinstance(each, Sequence))
