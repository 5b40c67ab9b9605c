"""Check an evidence bundle: by itself, offline, with nothing but Python and `cryptography`.

    python verify.py --key CONTROLLER_KEY.pem [--checkpoint EARLIER.json] [BUNDLE.zip]

Without BUNDLE.zip, the files beside this one are checked. The public key must come from the
controller by another way than the bundle. Exit code 0: everything holds; 1: something does not; 2:
the call was wrong.

1. the checkpoint is signed by a key that was given, and the ledger replaced that key by no other; a
   key that was given and did not sign it is one that the ledger shows to be replaced
2. every replaced key signed its successor's id, unless the ledger says that it was lost; none comes
   back, and what the ledger says of the given keys is what their files say: a lost key signs
   nothing, so that only a file can vouch for it
3. every document that closed a request (certificate, withdrawal, rejection) is signed and unchanged
   to the byte; by a replaced key only if the ledger closed the request before it replaced the key
4. a certificate tells of a scan that found nothing, which its ledger has (RFC 6962 section 2.1.1)
5. the checkpoint's ledger continues the one whose head the document names (section 2.1.2), and has
   the entry that closed the request with this very document
6. the checkpoint's ledger continues the earlier checkpoint, if one is given
"""

import argparse
import base64
import hashlib
import json
import math
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from s3t_core.erasure.merkle import continues, includes, leaf_hash

CERTIFICATE_TYPE = "urn:s3t:erasure-certificate:v1"
CLOSING_TYPE = "urn:s3t:request-closing:v1"
CHECKPOINT_TYPE = "urn:s3t:ledger-checkpoint:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MOST_BYTES = 2**30
"""A bundle that unpacks to more is refused."""

NOT_PROVED = (
    "that the key belongs to the controller: you must have it from them by another way",
    "that every request was recorded: hold the requests you know of against the certificates",
    "that the ledger shown to you is the one shown to others: compare its checkpoint with one that "
    "was kept elsewhere",
    "that files were destroyed and scanned as the entries say, or that copies outside the system "
    "are gone: the signature makes the controller answer for it",
    "that the live model has the stages the ledger says: the controller can train any of them "
    "again to the same bytes",
)
_SCAN = ("files", "bytes", "needles", "unsearchable", "lost", "shared", "outside")


class NotValid(Exception):
    """Something in the bundle does not hold; the message says what was expected."""


VOUCHED = b"s3t/v1/next signing key "
"""What a replaced key signs, followed by the new key's id."""
_REPLACED = re.compile(
    r"Replaced: ([0-9a-f]{64}) by ([0-9a-f]{64}) at (\S{20}), (lost|vouched [0-9a-f]{128})"
    r"(?:, key ([0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class KeyReplaced:
    """That another key signs from `time` on (RFC 3339): ids (SHA-256 of the raw public key, hex),
    and the old one's signature of the new one's id, hex, "" for one that was lost. `raw`: the old
    public key itself, hex, "" in a file that has its id alone."""

    old: str
    new: str
    time: str
    vouched: str
    raw: str = ""

    def line(self) -> str:
        """Returns the line that says so in a key file."""
        return (
            f"Replaced: {self.old} by {self.new} at {self.time}, "
            f"{f'vouched {self.vouched}' if self.vouched else 'lost'}"
            f"{f', key {self.raw}' if self.raw else ''}"
        )

    def public(self) -> Ed25519PublicKey | None:
        """The old public key, where the file has it. Raises NotValid for one of another id."""
        if not self.raw:
            return None
        found = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.raw))
        if key_id(found) != self.old:
            raise NotValid(
                f"expected key {self.old[:16]}... in the line that tells of it, got another; ask "
                "the controller for the key file again"
            )
        return found

    def check(self, old: Ed25519PublicKey) -> None:
        """That the old key vouches for the new one, unless it was lost. Raises NotValid."""
        if not self.vouched:
            return
        try:
            old.verify(bytes.fromhex(self.vouched), VOUCHED + bytes.fromhex(self.new))
        except (InvalidSignature, ValueError):
            raise NotValid(
                f"expected key {self.old[:16]}... to have signed the id of key {self.new[:16]}..., "
                "which replaced it, got another signature; ask the controller for the key file "
                "again"
            ) from None


@dataclass(frozen=True)
class KeyFile:
    """A public key, and what its file says of the keys before it."""

    public: Ed25519PublicKey
    replaced: tuple[KeyReplaced, ...] = ()

    @property
    def id(self) -> str:
        """SHA-256 of the raw public key, hex."""
        return key_id(self.public)


def read_key_file(content: bytes) -> KeyFile:
    """The Ed25519 public key (PEM) in a file, and the keys that it replaced, which stand before it
    as lines of text. Raises ValueError for anything else."""
    text, begin, block = content.partition(b"-----BEGIN PUBLIC KEY-----")
    try:
        public = load_pem_public_key(begin + block)
    except UnsupportedAlgorithm:
        raise ValueError("another kind of key") from None
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("another kind of key")
    found = (
        _REPLACED.fullmatch(line.strip()) for line in text.decode(errors="replace").splitlines()
    )
    return KeyFile(
        public,
        tuple(
            KeyReplaced(
                m[1], m[2], m[3], m[4].removeprefix("lost").removeprefix("vouched "), m[5] or ""
            )
            for m in found
            if m
        ),
    )


class GivenKeys:
    """The controller's keys as whoever verifies has them. A document that stands alone is told by
    them: `doubt_of`."""

    def __init__(self, files: Iterable[KeyFile | Ed25519PublicKey]) -> None:
        """Raises NotValid where a file says that a key was replaced which did not vouch for it."""
        given = [f if isinstance(f, KeyFile) else KeyFile(f) for f in files]
        self._replaced = {r.old: r for f in given for r in f.replaced}
        earlier = {old: r.public() for old, r in self._replaced.items()}
        self.by_id = {k: v for k, v in earlier.items() if v} | {f.id: f.public for f in given}
        if any(self._replaced[r.old].new != r.new for f in given for r in f.replaced):
            raise NotValid(
                "expected key files that agree on which key replaced which, got two that do not; "
                "ask the controller for their newest key file again"
            )
        for old in self.by_id.keys() & self._replaced.keys():
            self._replaced[old].check(self.by_id[old])

    def check_chain(self, signer: str, changes: Iterable[tuple[str, str, bool]]) -> None:
        """That a ledger's changes of keys, oldest first, up to the one that signed its checkpoint,
        fit these files. `changes`: the old key's id, the new one's, and whether the old one was
        lost. Raises NotValid."""
        chain = list(changes)
        successors = {old: new for old, new, _ in chain}
        if signer in successors or len(successors) < len(chain):
            raise NotValid(
                "expected a key that was replaced never to come back, got a ledger in which one "
                "does: whoever has the replaced key made it"
            )
        if signer in self._replaced:
            raise NotValid(
                f"expected a checkpoint of a key that is in use, got one by key {signer[:16]}..., "
                "which the controller's key file says was replaced at "
                f"{self._replaced[signer].time}: whoever has that key made it, or the evidence is "
                "older; ask for one that the newest key signs"
            )
        for old, replaced in self._replaced.items():
            if successors.get(old) != replaced.new:
                raise NotValid(
                    f"expected a ledger in which key {replaced.new[:16]}... replaced key "
                    f"{old[:16]}..., as the controller's key file says, got one that says "
                    "otherwise: it was forged with a key that was replaced, or is another "
                    "controller's"
                )
        for old, _, lost in chain:
            if lost and old in self.by_id and old not in self._replaced:
                raise NotValid(
                    f"expected a key file that says that key {old[:16]}... was lost and replaced, "
                    "as the ledger does, got none: whoever had a key could say so of another; give "
                    "the newest key's file as the controller wrote it"
                )

    def doubt_of(self, key: str) -> str:
        """Returns "" for a key that is in use as far as these files say, else in a sentence why a
        document that it signed proves nothing when it stands alone."""
        if key in self._replaced:
            return (
                f"signed by key {key[:16]}..., which was replaced at {self._replaced[key].time}; a "
                "bundle or the ledger shows whether the document is older, of what closed a request"
            )
        if len(self.by_id.keys() - self._replaced.keys()) > 1:
            return (
                f"signed by key {key[:16]}..., one of several of which nothing says which replaced "
                "which; give the newest key's file as the controller wrote it, or check a bundle"
            )
        return ""


_FOLDER = "certificates/"
DOCUMENT = re.compile(r"certificates/[^/\\]+\.json")
"""How a bundle names a certificate: one name for each request, so that none counts twice."""


def check_bundle(
    files: Mapping[str, bytes],
    given: Iterable[KeyFile | Ed25519PublicKey],
    earlier: bytes | None = None,
) -> dict[str, object]:
    """{"valid", "problems", "certificates", "checkpoint", "keys", "not_proved"} of a bundle's
    files, by name."""
    problems: list[str] = []
    certificates: list[dict[str, Any]] = []
    checkpoint: dict[str, Any] = {}
    proofs: dict[str, Any] = {}
    keys = _Keys(GivenKeys(()))
    try:
        proofs = _proofs(files)
        keys = _Keys(GivenKeys(given))
        checkpoint, signer = _signed_checkpoint(files.get("checkpoint.json", b""), keys)
        keys.follow(signer, checkpoint, proofs)
        if earlier is not None:
            _check_earlier(earlier, keys, checkpoint, proofs)
    except NotValid as error:
        problems.append(f"checkpoint: {error}")
        checkpoint = {}
    names = sorted(n for n in files if DOCUMENT.fullmatch(n))
    folders = {n for n in files if n.endswith("/") and not files[n]}
    others = files.keys() - {*names, "checkpoint.json", "proofs.json"} - folders
    strange = sum(map(_looks_like_a_document, others))
    if strange:
        problems.append(
            f"{_FOLDER} expected certificates/REQUEST.json and no other documents, got {strange} "
            "other name(s), which nobody checks: whoever counts documents would count them"
        )
    for name in names if checkpoint else []:
        try:
            request = Path(name).stem
            found = _check_certificate(files[name], request, keys, checkpoint, proofs)
            certificates.append(found)
        except NotValid as error:
            problems.append(f"{name}: {error}")
    expected = {f"certificates/{request}.json" for request in proofs.get("certificates", {})}
    problems += [
        f"{name}: expected the certificate that proofs.json tells of, got none"
        for name in sorted(expected - set(names))
    ]
    if not names:
        problems.append("certificates: expected at least one, got none")
    return {
        "valid": not problems,
        "problems": problems,
        "certificates": certificates,
        "checkpoint": checkpoint,
        "keys": sorted(keys.publics),
        "not_proved": list(NOT_PROVED),
    }


def _looks_like_a_document(name: str) -> bool:
    """Whether somebody who looks through a bundle may take it for one: it lies in a folder, by
    whatever letters that is spelt, or is called as one is."""
    plain = name.casefold().replace("\\", "/")
    in_a_folder = plain.endswith(".json") and ("/" in plain or plain.startswith("req-"))
    return _FOLDER in plain or in_a_folder


class _Keys:
    """The keys that count: those that were given and, once `follow` has shown it, those that the
    ledger replaced, each up to the entry that replaced it."""

    def __init__(self, given: GivenKeys) -> None:
        self._given = given
        self.publics = dict(given.by_id)
        self.until: dict[str, int] = {}

    def follow(
        self,
        signer: str,
        checkpoint: dict[str, Any],
        proofs: dict[str, Any],
    ) -> None:
        """Checks 1 and 2: which keys the checkpoint's ledger replaced, and when. Raises
        NotValid."""
        root, size = _head(checkpoint)
        try:
            changes = sorted(proofs["keys"], key=lambda p: int(p["index"]))
            for proof in changes:
                entry = proof["entry"]
                if entry["type"] != "key" or not includes(
                    root, size, proof["index"], _leaf(entry), _hashes(proof["inclusion"])
                ):
                    raise NotValid(
                        "expected the change of a key in the checkpoint's ledger, got a proof that "
                        "does not fit"
                    )
                self._replace(entry, proof["index"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise NotValid("expected whole proofs of the changes of keys, got others") from None
        chain = [p["entry"] for p in changes]
        has_gap = any(a["new"] != b["old"] for a, b in pairwise(chain))
        ends_elsewhere = bool(chain) and chain[-1]["new"] != signer
        if has_gap or ends_elsewhere:
            raise NotValid(
                "expected every change of a key up to the one that signed the checkpoint, got a gap"
            )
        links = ((e["old"], e["new"], not e["vouched"]) for e in chain)
        self._given.check_chain(signer, links)
        strange = sorted(self.publics.keys() - {signer} - self.until.keys())
        if strange:
            raise NotValid(
                "expected the checkpoint to be signed by the newest of the given keys, got a "
                f"ledger in which key {strange[0][:16]}... is neither in use nor replaced: a "
                "replaced key signed it, or that key is not this controller's; ask for a bundle "
                "that the newest key signs"
            )

    def _replace(self, entry: dict[str, Any], index: int) -> None:
        old = Ed25519PublicKey.from_public_bytes(bytes.fromhex(entry["old_public"]))
        if (
            key_id(old) != entry["old"]
            or entry["old"] in self.until
            or (not entry["vouched"] and not entry["lost"])
        ):
            raise NotValid("expected a change of the key that it names, got another")
        KeyReplaced(
            entry["old"],
            entry["new"],
            entry["time"],
            entry["vouched"],
        ).check(old)
        self.publics[entry["old"]] = old
        self.until[entry["old"]] = index

    def check_place(self, signer: str, index: int) -> None:
        """That the signer was in use when the ledger had `index` entries. Raises NotValid."""
        if index > self.until.get(signer, index):
            raise NotValid(
                f"expected a document of the time before key {signer[:16]}... was replaced, got "
                "one that the ledger has later: a replaced key signs nothing"
            )


def _signed_checkpoint(envelope: bytes, keys: _Keys) -> tuple[dict[str, Any], str]:
    """{"ledger", "size", "root", "time"} of a checkpoint, and the id of the key that signed it.
    Raises NotValid."""
    _, predicate, signer = _statement(
        envelope,
        keys.publics,
        (CHECKPOINT_TYPE,),
    )
    _head(predicate)
    return predicate, signer


_ENDS = OSError, EOFError, RuntimeError, ValueError, OverflowError
_BROKEN = (*_ENDS, zipfile.BadZipFile, zlib.error, struct.error)
"""What reading an archive may end in."""


def read_files(path: Path) -> dict[str, bytes]:
    """The files of a bundle: a zip file, or a directory it was unpacked to. Raises NotValid."""
    if path.is_dir():
        alike = "certificates/**/*", "[rR][eE][qQ]-*", "*/[rR][eE][qQ]-*"
        documents = {p for pattern in alike for p in path.glob(pattern)}
        certificates = sorted(p.relative_to(path).as_posix() for p in documents)
        names = list(dict.fromkeys(["checkpoint.json", "proofs.json", *certificates]))
        found = [(n, path / n) for n in names if (path / n).is_file()]
        if sum(p.stat().st_size for _, p in found) > MOST_BYTES:
            raise NotValid(f"expected at most {MOST_BYTES} bytes of evidence, got more")
        return {n: p.read_bytes() for n, p in found}
    if path.exists() and not path.is_file():
        raise NotValid("expected a bundle (zip) or a directory, got neither: a pipe or a device")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len({e.filename for e in entries}) != len(entries):
                raise NotValid("expected every name once in the bundle, got one twice")
            if sum(e.file_size for e in entries) > MOST_BYTES:
                raise NotValid(f"expected a bundle of at most {MOST_BYTES} bytes, got more")
            if any(
                e.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for e in entries
            ):
                raise NotValid(
                    "expected a bundle as it is written, got one that is compressed in another way"
                )
            return {e.filename: archive.read(e) for e in entries}
    except _BROKEN as error:
        raise NotValid(
            f"expected a bundle (zip) or a directory, got neither ({type(error).__name__})"
        ) from None


def _proofs(files: Mapping[str, bytes]) -> dict[str, object]:
    try:
        proofs = json.loads(files.get("proofs.json", b""))
        if not isinstance(proofs, dict) or not isinstance(proofs["certificates"], dict):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotValid("expected proofs in proofs.json, got none") from None
    return proofs


def _check_earlier(
    envelope: bytes,
    keys: _Keys,
    checkpoint: dict[str, Any],
    proofs: dict[str, Any],
) -> None:
    earlier, signer = _signed_checkpoint(envelope, keys)
    keys.check_place(signer, earlier["size"])
    if earlier["ledger"] != checkpoint["ledger"]:
        raise NotValid("expected the ledger that the earlier checkpoint names, got another")
    try:
        path = next(
            _hashes(p["consistency"]) for p in proofs["earlier"] if p["size"] == earlier["size"]
        )
    except (KeyError, TypeError, ValueError, OverflowError, StopIteration):
        raise NotValid(
            f"expected a proof from the earlier checkpoint's {earlier['size']} entries on, got "
            "none; ask for a bundle made with that checkpoint"
        ) from None
    if not continues(*_head(earlier), *_head(checkpoint), path):
        raise NotValid(
            "expected the ledger to continue the earlier checkpoint's, got one that does not: it "
            "was cut or rewritten"
        )


def _check_certificate(
    envelope: bytes, request: str, keys: _Keys, checkpoint: dict[str, Any], proofs: dict[str, Any]
) -> dict[str, Any]:
    kind, predicate, signer = _statement(envelope, keys.publics, (CERTIFICATE_TYPE, CLOSING_TYPE))
    try:
        if predicate["request"]["id"] != request:
            raise NotValid("expected the file to be named by its request, got another name")
        if kind == CERTIFICATE_TYPE:
            _check_scan(predicate)
        proof, head = proofs["certificates"][request], _head(predicate["ledger"])
        if predicate["ledger"]["name"] != checkpoint["ledger"] or not continues(
            *head, *_head(checkpoint), _hashes(proof["consistency"])
        ):
            raise NotValid(
                "expected the checkpoint's ledger to continue the certificate's, got one that does "
                "not"
            )
        closing = proof["entry"]
        if (closing["type"], closing["request"], closing["certificate"]) != (
            "certified" if kind == CERTIFICATE_TYPE else "closed",
            request,
            hashlib.sha256(envelope).hexdigest(),
        ):
            raise NotValid(
                "expected the entry that closed this request with this certificate, got another"
            )
        root, size = _head(checkpoint)
        if not includes(root, size, proof["index"], _leaf(closing), _hashes(proof["inclusion"])):
            raise NotValid(
                "expected the closing entry in the checkpoint's ledger, got a proof that does not "
                "fit"
            )
        keys.check_place(signer, proof["index"])
        document = {
            "request": request,
            "received": predicate["request"]["received"],
            "due": predicate["request"]["due"],
        }
        if kind == CLOSING_TYPE:
            return document | {
                "closed": predicate["closing"]["kind"],
                "certified": predicate["closing"]["time"],
            }
        found = predicate["found"]
        return document | {
            "closed": found["outcome"],
            "rows": found["rows"],
            "certified": predicate["times"]["certified"],
            "versions": predicate["versions"],
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise NotValid(
            "expected a whole certificate with its proofs, got one that lacks "
            f"{type(error).__name__} {str(error)[:40]!r}"
        ) from None


def _check_scan(predicate: dict[str, Any]) -> None:
    ledger, scan = predicate["ledger"], predicate["scan"]
    entry, (root, size) = ledger["entry"], _head(ledger)
    if scan["residue"] != 0 or type(scan["residue"]) is not int:
        raise NotValid("expected a scan that found nothing, got a certificate that says otherwise")
    if (entry["type"], entry["step"], entry["plan_id"]) != (
        "step",
        "scan",
        predicate["batch"]["plan"],
    ) or any(entry[k] != scan[k] for k in _SCAN):
        raise NotValid(
            "expected the ledger's entry of the scan that the certificate tells of, got another"
        )
    if not includes(
        root,
        size,
        ledger["index"],
        _leaf(entry),
        _hashes(ledger["proof"]),
    ):
        raise NotValid(
            "expected the scan in the certificate's ledger, got a proof that does not fit"
        )


def _statement(
    envelope: bytes,
    publics: Mapping[str, Ed25519PublicKey],
    kinds: tuple[str, ...],
) -> tuple[str, dict[str, Any], str]:
    """The type, one of `kinds`, the predicate, and the signer's id, of a DSSE envelope (v1) that
    one of the keys signed and that is spelt canonically. Raises NotValid."""
    try:
        parsed = json.loads(envelope)
        payload = base64.b64decode(parsed["payload"], validate=True)
        signature = base64.b64decode(parsed["signatures"][0]["sig"], validate=True)
        signer = parsed["signatures"][0]["keyid"]
        public = publics.get(signer) if isinstance(signer, str) else None
        if public is None:
            raise InvalidSignature
        body = PAYLOAD_TYPE.encode()
        public.verify(signature, b"DSSEv1 %d %s %d %s" % (len(body), body, len(payload), payload))
        canonical = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": signer, "sig": base64.b64encode(signature).decode()}],
        }
        statement = json.loads(payload)
        kind, predicate = statement["predicateType"], statement["predicate"]
        if (
            _canonical(canonical) != envelope
            or _canonical(statement) != payload
            or kind not in kinds
        ):
            raise ValueError
        if not isinstance(predicate, dict):
            raise TypeError
    except InvalidSignature:
        raise NotValid(
            "expected a signature by a given key over this content, got none: it was changed, or "
            "signed by another key"
        ) from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise NotValid(
            f"expected a signed statement of type {' or '.join(kinds)}, got something else"
        ) from None
    return kind, predicate, signer


def key_id(public: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key, hex."""
    return hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def _head(document: dict[str, Any]) -> tuple[bytes, int]:
    try:
        root, size = bytes.fromhex(document["root"]), document["size"]
    except (KeyError, TypeError, ValueError):
        raise NotValid("expected a ledger's root and size, got none") from None
    if type(size) is not int or size < 1 or len(root) != 32:
        raise NotValid("expected a ledger of at least one entry, got another size or root")
    return root, size


def _hashes(path: Iterable[str]) -> list[bytes]:
    return [bytes.fromhex(h) for h in path]


def _leaf(entry: object) -> bytes:
    return leaf_hash(_canonical(entry))


def _canonical(value: object) -> bytes:
    """RFC 8785: names in the order of their UTF-16 units, numbers as ECMAScript writes them. Raises
    ValueError for what has no such spelling, or is nested too deep to be spelt."""
    try:
        return _spelt(value).encode()
    except RecursionError:
        raise ValueError("a value that is nested too deep") from None


def _spelt(value: object) -> str:
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        members = [f"{_spelt(name)}:{_spelt(value[name])}" for name in names]
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_spelt, value)) + "]"
    if isinstance(value, float) or (isinstance(value, int) and abs(value) >= 2**53):
        return _number(value)
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """ECMAScript's Number::toString (ECMA-262, section 6.1.6.1.20)."""
    if isinstance(value, int) or not math.isfinite(value):
        raise ValueError("a number that JSON cannot hold")
    if value == 0:
        return "0"
    sign, figures, exponent = Decimal(repr(value)).as_tuple()
    digits = "".join(map(str, figures))
    point = int(exponent) + len(digits)
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        text = digits.ljust(point, "0")
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        fraction = f".{digits[1:]}" if digits[1:] else ""
        exponent_sign = "+" if point > 0 else "-"
        text = f"{digits[0]}{fraction}e{exponent_sign}{abs(point - 1)}"
    return f"{'-' if sign else ''}{text}"


def _rows(found: dict[str, Any]) -> str:
    return f" ({found['rows']} row(s))" if found.get("rows") else ""


def _render(result: dict[str, Any]) -> Iterator[str]:
    for found in result["certificates"]:
        yield (
            f"valid: {found['request']}, received {found['received']}, due {found['due']}, "
            f"{found['closed']}{_rows(found)} {found['certified']}"
        )
    if result["checkpoint"]:
        yield (
            f"ledger of {result['checkpoint']['size']} entries, signed "
            f"{result['checkpoint']['time']}"
        )
        yield from (f"key {key}" for key in result["keys"])
    yield from (f"NOT VALID: {problem}" for problem in result["problems"])
    if result["not_proved"]:
        yield "\nWhat this does not prove:"
    yield from (f"- {line}" for line in result["not_proved"])


def _regular(path: Path) -> bytes:
    """The bytes of a file; a pipe would be waited for. Raises OSError."""
    if not path.is_file():
        raise OSError("not a regular file")
    return path.read_bytes()


def main() -> None:
    """The command line of `verify.py`."""
    parser = argparse.ArgumentParser(
        prog="verify.py",
        description=str(__doc__).split("\n", 1)[0],
    )
    parser.add_argument(
        "bundle", nargs="?", default=str(Path(__file__).parent), help="zip or directory"
    )
    parser.add_argument(
        "--key",
        required=True,
        action="append",
        help="the controller's public key (PEM), got from the controller; again for each they used",
    )
    parser.add_argument("--checkpoint", help="an earlier checkpoint that you kept")
    arguments = parser.parse_args()
    try:
        keys = [read_key_file(_regular(Path(key))) for key in arguments.key]
        earlier = _regular(Path(arguments.checkpoint)) if arguments.checkpoint else None
    except (OSError, ValueError) as error:
        parser.error(
            f"expected readable Ed25519 public keys and checkpoint, got {type(error).__name__}"
        )
    try:
        result = check_bundle(
            read_files(Path(arguments.bundle)),
            keys,
            earlier,
        )
    except NotValid as error:
        result = {
            "problems": [str(error)],
            "certificates": [],
            "checkpoint": {},
            "keys": [],
            "not_proved": [],
        }
    text = "\n".join(_render(result)) + "\n"
    sys.stdout.write(text.encode("ascii", "backslashreplace").decode())
    sys.exit(1 if result["problems"] else 0)


if __name__ == "__main__":
    main()
