"""Refused rows, `.s3t/quarantine/rows.jsonl`: one JSON object a line, each under a seal."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from flows.adapters.matching import Matcher
from s3t_core.errors import StorageError
from s3t_core.files import read_regular, write_atomically
from s3t_core.keys import is_sealed, seal_over
from s3t_core.ports import Target

QUARANTINE = "quarantine/rows.jsonl"
"""From `.s3t` on."""
_SEALED = "quarantined row"


class QuarantinedRow(TypedDict):
    """A refused row as it is kept. Of one whose subject cannot be read, or was erased, `values` is
    empty, the digests are "" and `forms` has none."""

    row: int
    """Its place in the source, from 1."""
    reasons: list[str]
    values: dict[str, object]
    subject_digest: str
    record_digest: str
    forms: list[str]
    """Digests of the forms of the subject's id."""
    label: str
    """The column of `values` that was the label by the settings of its ingest, "" where none was,
    or nobody can say."""


class Quarantine:
    """The quarantine of a workspace. `key` seals each line: whose a row is, its line alone says."""

    def __init__(self, state_dir: Path, key: bytes) -> None:
        self._path, self._key = state_dir / QUARANTINE, key

    def lines(self) -> Iterator[QuarantinedRow | None]:
        """Every row; None for one that is damaged: it may be anybody's, so it goes with the next
        erasure. Raises StorageError for what cannot be read, or is no file."""
        try:
            lines = read_regular(self._path).splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StorageError(
                f"expected .s3t/{QUARANTINE} to be a file, got {reason}; take away what lies "
                "there, or fix its permissions, then run the command again"
            ) from None
        yield from map(self._read, lines)

    def rows(self) -> list[QuarantinedRow]:
        """Every row that can be read. Raises as `lines`."""
        return [line for line in self.lines() if line is not None]

    def hold(self, rows: Iterable[QuarantinedRow], append: bool) -> None:
        """Keep refused rows, each once: in place of what is there, or beside it. Raises as
        `lines`."""
        earlier = self.rows() if append else []
        kept = {json.dumps(row, sort_keys=True): row for row in [*earlier, *rows]}
        if kept or self._path.exists():
            self._write(kept.values())

    def erase(self, targets: list[Target], forms: Collection[str]) -> int:
        """Drop the targeted rows, those of a targeted record's subject of which nobody can say
        which record they are, those of whose id has any of these forms, and damaged ones; returns
        how many. Raises as `lines`."""
        match = Matcher(targets)
        lines = list(self.lines())
        kept = [
            line
            for line in lines
            if line is not None
            and not match.requests_of(line["subject_digest"], line["record_digest"])
            and set(forms).isdisjoint(line["forms"])
        ]
        if len(kept) < len(lines):
            self._write(kept)
        return len(lines) - len(kept)

    def _read(self, line: bytes) -> QuarantinedRow | None:
        try:
            value = json.loads(line)
            genuine = is_sealed(self._key, _SEALED, value, value.pop("seal"))
            return _row_of(value) if genuine else None
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return None

    def _write(self, rows: Iterable[QuarantinedRow]) -> None:
        sealed = ({**row, "seal": seal_over(self._key, _SEALED, row)} for row in rows)
        data = "".join(json.dumps(line, sort_keys=True) + "\n" for line in sealed)
        write_atomically(self._path, data.encode(), 0o600)


def _row_of(value: Mapping[str, object]) -> QuarantinedRow:
    """Raises LookupError, ValueError or TypeError for what is no row."""
    values, reasons, forms = value["values"], value["reasons"], value["forms"]
    if not (isinstance(values, dict) and isinstance(reasons, list) and isinstance(forms, list)):
        raise TypeError
    return QuarantinedRow(
        row=int(str(value["row"])),
        reasons=[str(r) for r in reasons],
        values=values,
        subject_digest=str(value["subject_digest"]),
        record_digest=str(value["record_digest"]),
        forms=[str(f) for f in forms],
        label=str(value.get("label", "")),  # earlier builds did not say
    )
