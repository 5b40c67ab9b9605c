"""An evidence bundle: certificates, a checkpoint, the proofs that join them, and a verifier that
runs by itself.

`offline.py` says what is checked. The verifier in the bundle is that module with `merkle.py` in it:
one source.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.erasure.checkpoint import Checkpoint
from s3t_core.erasure.dsse import statement_of
from s3t_core.erasure.ledger import leaf_of
from s3t_core.erasure.merkle import consistency_proof, inclusion_proofs, leaf_hash
from s3t_core.erasure.vocabulary import Event
from s3t_core.errors import CertificateError

_README = """Evidence of erasures

{certificates} document(s) that closed a request (certificate, withdrawal, rejection), and the proofs that the ledger
closed each request with it.

To check them you need Python 3.11 or later, the package `cryptography`, and the controller's public key, which you must
have got from the controller by another way than this bundle:

    python verify.py --key CONTROLLER_KEY.pem
    python verify.py --key CONTROLLER_KEY.pem --checkpoint EARLIER.json    (a checkpoint.json that you kept)

The verifier says what it found, and what such a bundle cannot prove. Read it: it is one file. A certificate's content:

    python -c "import base64,json,sys; print(json.dumps(json.loads(base64.b64decode(
        json.load(open(sys.argv[1]))['payload'])), indent=1))" certificates/REQUEST.json

Keep checkpoint.json: a later bundle can be held against it.
"""  # noqa: E501
_IMPORT = "from s3t_core.erasure.merkle import continues, includes, leaf_hash\n"


def make_bundle(
    certificates: Mapping[str, bytes],
    checkpoint: Checkpoint,
    signed: bytes,
    events: list[Event],
    earlier: Iterable[Checkpoint] = (),
) -> dict[str, bytes]:
    """The files of a bundle by name. `certificates` by request id; `signed` is the checkpoint's
    envelope; `events` is the whole ledger, of which the checkpoint signs the first
    `checkpoint.head.size` entries.

    Raises CertificateError for a certificate that is not the one by which the ledger closed its
    request.
    """
    leaves = [leaf_hash(leaf_of(e)) for e in events[: checkpoint.head.size]]
    closing = {
        e["request"]: i
        for i, e in enumerate(events[: len(leaves)])
        if e["type"] in ("certified", "closed")
    }
    paths = dict(zip(closing, inclusion_proofs(leaves, closing.values()), strict=True))
    proofs: dict[str, Any] = {}
    consistency: dict[int, list[str]] = {}
    for request, envelope in sorted(certificates.items()):
        index = closing.get(request)
        if index is None or events[index]["certificate"] != sha256_hex(envelope):
            raise CertificateError(
                f"expected the certificate of {request} as the ledger recorded it, got another; "
                "restore .s3t/certificates from its backup"
            )
        size = statement_of(envelope)["predicate"]["ledger"]["size"]
        if size not in consistency:  # a batch shares one
            consistency[size] = [h.hex() for h in consistency_proof(leaves, size)]
        proofs[request] = {
            "index": index,
            "entry": events[index],
            "consistency": consistency[size],
            "inclusion": [h.hex() for h in paths[request]],
        }
    changes = [i for i, e in enumerate(events[: len(leaves)]) if e["type"] == "key"]
    keys = [
        {"index": i, "entry": events[i], "inclusion": [h.hex() for h in path]}
        for i, path in zip(changes, inclusion_proofs(leaves, changes), strict=True)
    ]
    known = [
        {
            "size": c.head.size,
            "consistency": [h.hex() for h in consistency_proof(leaves, c.head.size)],
        }
        for c in earlier
    ]
    return {
        "README.txt": _README.format(certificates=len(certificates)).encode(),
        "verify.py": standalone_verifier(),
        "checkpoint.json": signed,
        "proofs.json": canonical_json({"certificates": proofs, "earlier": known, "keys": keys}),
        **{
            f"certificates/{request}.json": envelope
            for request, envelope in sorted(certificates.items())
        },
    }


def standalone_verifier() -> bytes:
    """The source of `offline.py` with that of `merkle.py` where it imports it."""
    folder = Path(__file__).parent
    tree = (folder / "merkle.py").read_text(encoding="utf-8").split('"""\n', 1)[1]
    return (
        (folder / "offline.py")
        .read_text(encoding="utf-8")
        .replace(_IMPORT, tree.strip("\n") + "\n", 1)
        .encode()
    )
