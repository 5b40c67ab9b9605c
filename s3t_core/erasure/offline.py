"""Check an evidence bundle: by itself, offline, with nothing but Python and `cryptography`.

    python verify.py --key CONTROLLER_KEY.pem [--checkpoint EARLIER.json] [BUNDLE.zip]

Without BUNDLE.zip, the files beside this one are checked. The public key must come from the controller by another way
than the bundle. Exit code 0: everything holds; 1: something does not; 2: the call was wrong.

1. the checkpoint is signed by the key
2. every document that closed a request (certificate, withdrawal, rejection) is signed by the key and unchanged to
   the byte, and a certificate tells of a scan that found nothing, which its ledger has (RFC 6962 section 2.1.1)
3. the checkpoint's ledger continues the one whose head the document names (section 2.1.2), and has the entry that
   closed the request with this very document
4. the checkpoint's ledger continues the earlier checkpoint, if one is given
"""

import argparse
import base64
import hashlib
import json
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
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
    "that the ledger shown to you is the one shown to others: compare its checkpoint with one that was kept elsewhere",
    "that files were destroyed and scanned as the entries say, or that copies outside the system are gone: the "
    "signature makes the controller answer for it",
    "that the live model has the stages the ledger says: the controller can train any of them again to the same bytes",
)
_SCAN = ("files", "bytes", "needles", "unsearchable", "shared", "outside")


Publics = Sequence[Ed25519PublicKey]
"""The controller's public keys: more than one after a key was changed."""


class NotValid(Exception):
    """Something in the bundle does not hold; the message says what was expected."""


def check_bundle(files: Mapping[str, bytes], publics: Publics, earlier: bytes | None = None) -> dict[str, Any]:
    """{"valid", "problems", "certificates", "checkpoint", "not_proved"} of a bundle's files, by name."""
    problems: list[str] = []
    certificates: list[dict[str, Any]] = []
    checkpoint: dict[str, Any] = {}
    proofs: dict[str, Any] = {}
    try:
        proofs = _proofs(files)
        checkpoint = read_checkpoint(files.get("checkpoint.json", b""), publics)
        if earlier is not None:
            _check_earlier(read_checkpoint(earlier, publics), checkpoint, proofs)
    except NotValid as error:
        problems.append(f"checkpoint: {error}")
    names = sorted(n for n in files if n.startswith("certificates/"))
    for name in names if checkpoint else []:
        try:
            certificates.append(_check_certificate(files[name], Path(name).stem, publics, checkpoint, proofs))
        except NotValid as error:
            problems.append(f"{name}: {error}")
    told = {f"certificates/{request}.json" for request in proofs.get("certificates", {})}
    problems += [f"{name}: expected the certificate that proofs.json tells of, got none"
                 for name in sorted(told - set(names))]
    if not names:
        problems.append("certificates: expected at least one, got none")
    return {"valid": not problems, "problems": problems, "certificates": certificates, "checkpoint": checkpoint,
            "not_proved": list(NOT_PROVED)}


def read_checkpoint(envelope: bytes, publics: Publics) -> dict[str, Any]:
    """{"ledger", "size", "root", "time"} of a checkpoint that one of the keys signed. Raises NotValid."""
    _, predicate = _statement(envelope, publics, (CHECKPOINT_TYPE,))
    _head(predicate)
    return predicate


def read_files(path: Path) -> dict[str, bytes]:
    """The files of a bundle: a zip file, or a directory it was unpacked to. Raises NotValid."""
    if path.is_dir():
        certificates = (f"certificates/{p.name}" for p in path.glob("certificates/*.json"))
        names = ["checkpoint.json", "proofs.json", *certificates]
        found = [(n, path / n) for n in names if (path / n).is_file()]
        if sum(p.stat().st_size for _, p in found) > MOST_BYTES:
            raise NotValid(f"expected at most {MOST_BYTES} bytes of evidence, got more")
        return {n: p.read_bytes() for n, p in found}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len({e.filename for e in entries}) != len(entries):
                raise NotValid("expected every name once in the bundle, got one twice")
            if sum(e.file_size for e in entries) > MOST_BYTES:
                raise NotValid(f"expected a bundle of at most {MOST_BYTES} bytes, got more")
            return {e.filename: archive.read(e) for e in entries}
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise NotValid(f"expected a bundle (zip) or a directory, got neither ({type(error).__name__})") from None


def _proofs(files: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        proofs = json.loads(files.get("proofs.json", b""))
        if not isinstance(proofs, dict) or not isinstance(proofs["certificates"], dict):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotValid("expected proofs in proofs.json, got none") from None
    return proofs


def _check_earlier(earlier: dict[str, Any], checkpoint: dict[str, Any], proofs: dict[str, Any]) -> None:
    if earlier["ledger"] != checkpoint["ledger"]:
        raise NotValid("expected the ledger that the earlier checkpoint names, got another")
    try:
        path = next(_hashes(p["consistency"]) for p in proofs["earlier"] if p["size"] == earlier["size"])
    except (KeyError, TypeError, ValueError, StopIteration):
        raise NotValid(f"expected a proof from the earlier checkpoint's {earlier['size']} entries on, got none; ask "
                       "for a bundle made with that checkpoint") from None
    if not continues(*_head(earlier), *_head(checkpoint), path):
        raise NotValid("expected the ledger to continue the earlier checkpoint's, got one that does not: it was cut or "
                       "rewritten")


def _check_certificate(envelope: bytes, request: str, publics: Publics, checkpoint: dict[str, Any],
                       proofs: dict[str, Any]) -> dict[str, Any]:
    kind, predicate = _statement(envelope, publics, (CERTIFICATE_TYPE, CLOSING_TYPE))
    try:
        if predicate["request"]["id"] != request:
            raise NotValid("expected the file to be named by its request, got another name")
        if kind == CERTIFICATE_TYPE:
            _check_scan(predicate)
        proof, head = proofs["certificates"][request], _head(predicate["ledger"])
        if predicate["ledger"]["name"] != checkpoint["ledger"] or not continues(
                *head, *_head(checkpoint), _hashes(proof["consistency"])):
            raise NotValid("expected the checkpoint's ledger to continue the certificate's, got one that does not")
        closing = proof["entry"]
        if (closing["type"], closing["request"], closing["certificate"]) != (
                "certified" if kind == CERTIFICATE_TYPE else "closed", request, hashlib.sha256(envelope).hexdigest()):
            raise NotValid("expected the entry that closed this request with this certificate, got another")
        root, size = _head(checkpoint)
        if not includes(root, size, proof["index"], _leaf(closing), _hashes(proof["inclusion"])):
            raise NotValid("expected the closing entry in the checkpoint's ledger, got a proof that does not fit")
        told = {"request": request, "received": predicate["request"]["received"], "due": predicate["request"]["due"]}
        if kind == CLOSING_TYPE:
            return told | {"closed": predicate["closing"]["kind"], "certified": predicate["closing"]["time"]}
        return told | {"closed": "erased", "certified": predicate["times"]["certified"],
                       "versions": predicate["versions"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotValid(f"expected a whole certificate with its proofs, got one that lacks {type(error).__name__} "
                       f"{str(error)[:40]!r}") from None


def _check_scan(predicate: dict[str, Any]) -> None:
    ledger, scan = predicate["ledger"], predicate["scan"]
    entry, (root, size) = ledger["entry"], _head(ledger)
    if scan["residue"] != 0 or type(scan["residue"]) is not int:
        raise NotValid("expected a scan that found nothing, got a certificate that says otherwise")
    if (entry["type"], entry["step"], entry["plan_id"]) != ("step", "scan", predicate["batch"]["plan"]) or any(
            entry[k] != scan[k] for k in _SCAN):
        raise NotValid("expected the ledger's entry of the scan that the certificate tells of, got another")
    if not includes(root, size, ledger["index"], _leaf(entry), _hashes(ledger["proof"])):
        raise NotValid("expected the scan in the certificate's ledger, got a proof that does not fit")


def _statement(envelope: bytes, publics: Publics, kinds: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The type, one of `kinds`, and the predicate of a DSSE envelope (v1) that one of the keys signed and that is
    spelt canonically. Raises NotValid."""
    try:
        parsed = json.loads(envelope)
        payload = base64.b64decode(parsed["payload"], validate=True)
        signature = base64.b64decode(parsed["signatures"][0]["sig"], validate=True)
        key_id = parsed["signatures"][0]["keyid"]
        public = next((p for p in publics if _key_id(p) == key_id), None)
        if public is None:
            raise InvalidSignature
        body = PAYLOAD_TYPE.encode()
        public.verify(signature, b"DSSEv1 %d %s %d %s" % (len(body), body, len(payload), payload))
        canonical = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": [
            {"keyid": key_id, "sig": base64.b64encode(signature).decode()}]}
        statement = json.loads(payload)
        kind, predicate = statement["predicateType"], statement["predicate"]
        if _canonical(canonical) != envelope or kind not in kinds:
            raise ValueError
        if not isinstance(predicate, dict):
            raise TypeError
    except InvalidSignature:
        raise NotValid("expected a signature by a given key over this content, got none: it was changed, or signed "
                       "by another key") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise NotValid(f"expected a signed statement of type {' or '.join(kinds)}, got something else") from None
    return kind, predicate


def _key_id(public: Ed25519PublicKey) -> str:
    return hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def _head(document: dict[str, Any]) -> tuple[bytes, int]:
    try:
        root, size = bytes.fromhex(document["root"]), document["size"]
    except (KeyError, TypeError, ValueError):
        raise NotValid("expected a ledger's root and size, got none") from None
    if type(size) is not int or size < 1 or len(root) != 32:
        raise NotValid("expected a ledger of at least one entry, got another size or root")
    return root, size


def _hashes(path: Any) -> list[bytes]:
    return [bytes.fromhex(h) for h in path]


def _leaf(entry: Any) -> bytes:
    return leaf_hash(_canonical(entry))


def _canonical(value: Any) -> bytes:
    """RFC 8785 for what is hashed here: strings, whole numbers, lists and objects with ASCII names."""
    if any(isinstance(v, float) for v in _values(value)):
        raise ValueError("a number with a fraction")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _values(part)
    else:
        yield value


def _told(result: dict[str, Any]) -> Iterator[str]:
    for found in result["certificates"]:
        yield (f"valid: {found['request']}, received {found['received']}, due {found['due']}, {found['closed']} "
               f"{found['certified']}")
    if result["checkpoint"]:
        yield f"ledger of {result['checkpoint']['size']} entries, signed {result['checkpoint']['time']}"
    yield from (f"NOT VALID: {problem}" for problem in result["problems"])
    if result["not_proved"]:
        yield "\nWhat this does not prove:"
    yield from (f"- {line}" for line in result["not_proved"])


def main() -> None:
    """The command line of `verify.py`."""
    parser = argparse.ArgumentParser(prog="verify.py", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("bundle", nargs="?", default=str(Path(__file__).parent), help="zip or directory")
    parser.add_argument("--key", required=True, action="append",
                        help="the controller's public key (PEM), got from the controller; again for each they used")
    parser.add_argument("--checkpoint", help="an earlier checkpoint that you kept")
    arguments = parser.parse_args()
    try:
        publics = [load_pem_public_key(Path(key).read_bytes()) for key in arguments.key]
        earlier = Path(arguments.checkpoint).read_bytes() if arguments.checkpoint else None
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        parser.error(f"expected a readable key and checkpoint, got {type(error).__name__}")
    keys = [public for public in publics if isinstance(public, Ed25519PublicKey)]
    if len(keys) != len(publics):
        parser.error("expected Ed25519 public keys, got another kind")
    try:
        result = check_bundle(read_files(Path(arguments.bundle)), keys, earlier)
    except NotValid as error:
        result = {"problems": [str(error)], "certificates": [], "checkpoint": {}, "not_proved": []}
    sys.stdout.write("\n".join(_told(result)) + "\n")
    sys.exit(1 if result["problems"] else 0)


if __name__ == "__main__":
    main()
