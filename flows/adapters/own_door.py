"""How a command on this machine finds the HTTP door of its workspace, and is known there.

Whoever opens a door on the loopback address says in `.s3t/door.json`, for the owner alone, where it
is, and a secret by which it knows the operator's own commands: for answers of the model, and for as
long as it lives. It holds `.s3t/door.lock` meanwhile. What a killed one left names a port that may
be anybody's by now: nobody who finds the lock free believes it.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.adapters.credentials import new_secret, read_private
from flows.adapters.locks import is_held, workspace_lock
from s3t_core.errors import Busy, S3TError
from s3t_core.files import remove_file, write_atomically

DOOR, DOOR_LOCK = "door.json", "door.lock"
_PREDICT = "/api/v1/predict"
_CONNECT_SECONDS, _ANSWER_SECONDS = 1.0, 120.0


class OwnDoor:
    """A door that says where it is. `secret` is "" where another one of this workspace does."""

    def __init__(self, state_dir: Path, secret: str) -> None:
        self._place = state_dir / DOOR
        self.secret = secret

    def say(self, url: str) -> None:
        """It answers at this address from now on."""
        if self.secret:
            document = {"url": url, "secret": self.secret}
            write_atomically(self._place, json.dumps(document).encode(), 0o600)


@contextlib.contextmanager
def own_door(state_dir: Path, says: bool) -> Iterator[OwnDoor]:
    """One that is about to be opened; `says`: whether commands here can reach it. When the block
    ends nobody is sent there any more."""
    with contextlib.ExitStack() as held:
        try:
            if not says:
                raise Busy("nobody here can reach it")
            held.enter_context(workspace_lock(state_dir / DOOR_LOCK))
            held.callback(remove_file, state_dir / DOOR)
            door = OwnDoor(state_dir, new_secret())
        except Busy:
            door = OwnDoor(state_dir, "")
        yield door


def ask_own_door(
    state_dir: Path, asked: Mapping[str, object], params: Mapping[str, object]
) -> list[Any] | None:
    """What the model answers there; None where no door of this workspace is open, or where it has
    no answer: then whoever asks loads the model, and hears what is wrong. `asked`: `texts` or
    `pairs`."""
    import httpx

    if not is_held(state_dir / DOOR_LOCK):
        return None
    try:
        said = json.loads(read_private(state_dir / DOOR))
        headers = {"authorization": f"Bearer {said['secret']}"}
        waits = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
        with httpx.Client(trust_env=False, timeout=waits, headers=headers) as client:
            response = client.post(f"{said['url']}{_PREDICT}", json={**asked, **params})
        answers = response.json()["answers"] if response.status_code == httpx.codes.OK else None
    except (OSError, ValueError, LookupError, TypeError, S3TError, httpx.HTTPError):
        return None
    return answers if isinstance(answers, list) and len(answers) == _count(asked) else None


def _count(asked: Mapping[str, object]) -> int:
    return sum(len(each) for each in asked.values() if isinstance(each, Sequence))
