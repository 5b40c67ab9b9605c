"""One small tree of errors. A message says what was expected, what came, and what to do next.

A caller's misuse, bad data and a broken guarantee are different types, because they have different
remedies: fix the call, fix the data, or stop trusting what is on disk. `exit_code` is what the
command line returns: 2 for bad usage or input, 1 for a failure. No message carries a subject id, a
record or a text. A message is text that terminals, logs and JSON take: it may tell the name of a
file, which is any bytes.
"""

import re

_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line and direction marks, and what bytes that are not UTF-8 become in the
name of a file."""


def printable(text: str, keep: str = "") -> str:
    """A text that can be told anywhere: characters that no terminal, log or JSON takes as they are,
    but for those to `keep`, stand as escapes."""

    def shown(found: re.Match[str]) -> str:
        character = found[0]
        if character in keep:
            return character
        return character.encode("unicode_escape").decode()

    return _UNSHOWN.sub(shown, text)


class S3TError(Exception):
    """The root of every error this system raises on purpose."""

    exit_code = 1

    def __init__(self, message: str = "", *more: object) -> None:
        super().__init__(printable(message, keep="\n\t"), *more)


class UsageError(S3TError):
    """The call itself is wrong: a bad argument or setting."""

    exit_code = 2


class NotThere(UsageError):
    """What is asked for by its name is not there."""


class NotNow(UsageError):
    """What is asked for is well formed, and does not fit how things stand: a request that is closed
    already, a time that has passed."""


class ConfigError(UsageError):
    """`s3t.toml` holds a wrong value, or one that does not work yet."""


class WorkspaceError(UsageError):
    """The directory is not a workspace, or its keys or files are not what a workspace has."""


class DataError(UsageError):
    """The source cannot be read as the config describes it, or nothing in it can be used."""


class StorageError(S3TError):
    """A file could not be written or read: a full disk, a missing permission."""


class Busy(S3TError):
    """Another process holds the workspace: only one may change it at a time."""


class OrchestrationError(S3TError):
    """Prefect's server could not be reached, or failed: what was done stands, the rest is done by
    the next run."""


class TrainingError(S3TError):
    """A stage could not be trained: its process died, or its loss was not finite."""


class GuaranteeError(S3TError):
    """Something that the guarantees rest on does not hold. The system refuses to go on."""


class ArtifactError(GuaranteeError):
    """A stage artifact is missing, truncated, or not the bytes its digest names."""


class BackboneChanged(GuaranteeError):
    """The pretrained model on disk is not the one that was recorded."""


class LedgerError(GuaranteeError):
    """The ledger does not read as one that only grew."""


class NoLiveShard(GuaranteeError):
    """Every shard is dead: no model may answer until the full retrain is done."""


class StaleModel(GuaranteeError):
    """The loaded model version is no longer, or cannot be confirmed to be, the one that may
    serve."""


class ResidueFound(GuaranteeError):
    """A trace of an erased record is left in something the system wrote."""


class RequestsLeftOpen(ResidueFound):
    """Requests stay open, because what they ask for stands in what the system wrote: in no row, or
    although its rows are destroyed. Everything else is done, and `done` tells of it."""

    def __init__(self, message: str, done: dict[str, object]) -> None:
        super().__init__(message)
        self.done = done


class CertificateError(GuaranteeError):
    """A certificate does not verify."""


class UnknownSigner(CertificateError):
    """It is signed by another key than those that are known."""
