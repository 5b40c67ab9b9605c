"""Hosts apart that take requests: added to a workspace, listed, removed; and the ids that they
sealed, opened on the machine that erases.

Three steps, so that no private key travels: the host makes its key (`make_intake_key`), the
workspace adds the public one and hands a file out (`add_intake`), the host installs that file
(`install_intake`).
"""

from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import BaseModel, ConfigDict

from flows.adapters.keys import WORKSPACE_KEY, read_signing_key
from flows.adapters.permissions import as_owner_only
from flows.adapters.sealed_ids import (
    SealedIds,
    Told,
    forget_unsealing_key,
    new_unsealing_key,
)
from flows.settings import CONFIG_NAME
from flows.use_cases.documents import IntakeEntry
from flows.use_cases.finding import Findable
from flows.use_cases.quoting import name_to_keep
from flows.workspace import access
from flows.workspace.intake import INTAKE_KEY, Handed, IntakeHost, handed_bytes
from flows.workspace.layout import HANDED
from flows.workspace.parts import HasSigning, Lockable
from s3t_core.config import Config, parse_config, render_config
from s3t_core.erasure import events
from s3t_core.erasure.offline import key_id
from s3t_core.erasure.state import IntakeRecord, State
from s3t_core.errors import UsageError
from s3t_core.files import SHARED_MODE, read_regular, write_atomically
from s3t_core.keys import IntakeKeys

_WAIT_SECONDS = 60
_MOST_BYTES = 2**20


class WithIntakes(Findable, HasSigning, Lockable, Protocol):
    """What hosts apart may take requests for."""


class _File(BaseModel):
    """What is carried to the host: its settings, and what is handed to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: str
    handed: Handed


def make_intake_key(root: Path) -> str:
    """On the host: make its key in a directory of its own, once; returns the public one, hex, for
    `add_intake`."""
    keys = root / ".s3t" / "keys"
    _refuse_workspace(keys)
    if not (keys / INTAKE_KEY).exists():
        keys.mkdir(parents=True, exist_ok=True)
        as_owner_only(root / ".s3t")
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(keys / INTAKE_KEY, pem, 0o600)
        keys.chmod(0o700)
    public = read_signing_key(keys, INTAKE_KEY).public_key()
    return public.public_bytes_raw().hex()


def _refuse_workspace(keys: Path) -> None:
    if (keys / WORKSPACE_KEY).exists():
        raise UsageError(
            "expected a directory of the host's own, got that of a workspace; name another: what "
            "faces the network has none of its keys"
        )


def add_intake(
    workspace: WithIntakes, name: str, public: str, by: str, database: str = ""
) -> tuple[str, bytes]:
    """At the workspace: let the host with this public key take requests. Returns the id of its key,
    and the bytes of the file to carry to it, which are secret. `database`: its URL from there,
    where that is another. Raises UsageError for no key, one that was added before, and a database
    that is a file: whoever may write to that may write anything."""
    url = database or workspace.config.database.url
    for each in (workspace.config.database.url, url):
        check_server(each)
    who, called = name_to_keep(workspace, by), name_to_keep(workspace, name)
    key = _public_key(public)
    with access.changing(workspace, _WAIT_SECONDS):
        state = workspace.ledger.state()
        host = key_id(key)
        if host in {*state.intakes, *state.signed_by}:
            raise UsageError(
                "expected the key of a host that was not added before, got one that was; make "
                "another there (`s3t intake key`, in a new directory); nothing was changed"
            )
        sealing = new_unsealing_key(workspace.keys_dir, host).public_bytes_raw().hex()
        workspace.ledger.append(
            events.IntakeAdded(
                time=workspace.now(),
                key=host,
                public=key.public_bytes_raw().hex(),
                seals_to=sealing,
                called=called,
                by=who,
            )
        )
        workspace.signing.write_checkpoint()
    keys = vars(IntakeKeys.of(workspace.keys))
    handed = Handed(
        ledger=workspace.ledger.leaves()[0].hex(),
        host=host,
        seals_to=sealing,
        keys={name: value.hex() for name, value in keys.items()},
    )
    settings = render_config(_settings_of(workspace.config, url))
    return host, _File(settings=settings, handed=handed).model_dump_json(indent=1).encode() + b"\n"


def check_server(url: str) -> None:
    """That the database tells accounts apart. Raises UsageError."""
    if not url.startswith("postgresql://"):
        raise UsageError(
            "expected a workspace whose [database] url is postgresql://, got a file: whoever takes "
            "requests in a file may change all of it. Move the workspace first (`s3t migrate`)"
        )


def _public_key(text: str) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    except ValueError:
        raise UsageError(
            "expected the public key of the host, 64 hexadecimal digits as `s3t intake key` prints "
            "them, got something else; nothing was changed"
        ) from None


def _settings_of(
    config: Config,
    url: str,
) -> Config:
    """What the host needs of the settings: how ids are read, when requests are due, its door."""
    return Config(
        data=config.data,
        task=config.task,
        erasure=config.erasure.model_copy(update={"log_checkpoints_to": ""}),
        api=config.api,
        database=config.database.model_copy(update={"url": url}),
    )


def install_intake(
    root: Path,
    file: Path,
) -> IntakeHost:
    """On the host: install what the workspace handed out for its key. Raises UsageError for another
    file, or another host's."""
    try:
        found = _File.model_validate_json(read_regular(file, _MOST_BYTES))
        config = parse_config(found.settings.encode())
        X25519PublicKey.from_public_bytes(bytes.fromhex(found.handed.seals_to))
    except (OSError, ValueError):
        raise UsageError(
            "expected the file that `s3t intake add` wrote, got another or none; carry it here "
            "anew, or have the host added again"
        ) from None
    _refuse_workspace(root / ".s3t" / "keys")
    if not (root / ".s3t" / "keys" / INTAKE_KEY).exists():
        raise UsageError(
            "expected the directory in which `s3t intake key` made this host's key, got another; "
            "nothing was changed"
        )
    private = read_signing_key(root / ".s3t" / "keys", INTAKE_KEY)
    own = key_id(private.public_key())
    if own != found.handed.host:
        raise UsageError(
            "expected a file for the key of this directory, got another host's; install it there, "
            "or have this key added (`s3t intake key` prints it)"
        )
    write_atomically(
        root / CONFIG_NAME,
        render_config(config).encode(),
        SHARED_MODE,
    )
    write_atomically(
        root / ".s3t" / HANDED,
        handed_bytes(found.handed),
        0o600,
    )
    return IntakeHost(root)


def list_intakes(state: State) -> list[IntakeEntry]:
    """Every host that ever took requests, as JSON values."""
    return [_entry(key, record) for key, record in state.intakes.items()]


def remove_intake(
    workspace: WithIntakes,
    key: str,
    by: str,
) -> IntakeEntry:
    """Let a host take no more requests; what it sealed is opened, and the key that opens it is
    destroyed. `key`: the id of its key, or how that begins. Raises UsageError for no such host."""
    who = name_to_keep(workspace, by)
    with access.changing(workspace, _WAIT_SECONDS):
        state = workspace.ledger.state()
        found = [k for k, r in state.intakes.items() if k.startswith(key) and r.until is None]
        if len(found) != 1 or not key:
            raise UsageError(
                f"expected the id of the key of one host that takes requests, got {len(found)} "
                "that begin so; `s3t intake list` shows them; nothing was changed"
            )
        [host] = found
        workspace.ledger.append(events.IntakeRemoved(time=workspace.now(), key=host, by=who))
        open_sealed(workspace)
        workspace.signing.write_checkpoint()
        return _entry(host, workspace.ledger.state().intakes[host])


def open_sealed(workspace: Findable) -> int:
    """Open the ids that hosts apart sealed, so that they can be looked for; of how many requests.
    What opens those of hosts that were removed is destroyed then. For who changes the workspace.
    Raises WorkspaceError where a key is lost."""

    def told() -> Told:
        state = workspace.ledger.state()
        digests = {i: frozenset(r.ids) for i, r in state.requests.items() if state.is_open(i)}
        return Told(digests, {k for k, r in state.intakes.items() if r.until is None})

    opened = SealedIds(workspace.database, workspace.keys_dir).take(workspace.needles, told)
    for host, record in workspace.ledger.state_so_far().intakes.items():
        if record.until is not None:
            forget_unsealing_key(workspace.keys_dir, host)
    return opened


def _entry(
    key: str,
    record: IntakeRecord,
) -> IntakeEntry:
    return {"key": key, "name": record.name, "takes_requests": record.until is None}
