"""What every ingest looks at first, before Prefect starts and before anything is locked: all
problems together."""

from collections.abc import Sequence

from flows.adapters.sources.labels import Undeclared
from flows.adapters.sources.parts import parts_of
from flows.adapters.sources.remote import check_form, is_remote
from flows.adapters.sources.source import CHUNK_ROWS, Source
from flows.adapters.sources.targets import reading_of
from s3t_core.config import Config
from s3t_core.errors import ConfigError, DataError

_READ_BYTES = 16 * 2**20
"""Smaller sources are read whole: an unclosed quote, or labels of which none is declared, are told
at once."""


def preflight(config: Config, sources: Sequence[str]) -> None:
    """The source, opened and found to have what the config names. Raises ConfigError and DataError
    that tell every problem there is. Of what lies on another machine only the spelling is looked
    at: UsageError."""
    if any(map(is_remote, sources)):
        config.require_labels()
        check_form(sources, config.data.query)
        return
    problems = []
    try:
        config.require_labels()
    except ConfigError as error:
        problems.append(str(error))
    try:
        source = Source(
            sources,
            config.data,
            config.tiers.column,
            config.task,
        )
        problems += source.problems()
    except DataError as error:
        raise DataError("; ".join([*problems, str(error)])) from None
    if problems:
        raise (ConfigError if len(problems) == 1 and not config.data.labels else DataError)(
            "; ".join(problems)
        )
    if not sources[0].startswith("example:") and _size(sources) <= _READ_BYTES:
        _read(config, sources)


def _size(sources: Sequence[str]) -> int:
    """Bytes of all files; packed ones may hold many times as much, and are taken for that."""
    return sum(part.path.stat().st_size * (20 if part.packing else 1) for part in parts_of(sources))


def _read(config: Config, sources: Sequence[str]) -> None:
    data, reading = config.data, reading_of(config.task, config.data.labels)
    undeclared, declared, rows = Undeclared(data.labels), False, 0
    for chunk in Source(
        sources,
        data,
        config.tiers.column,
        config.task,
    ).chunks(CHUNK_ROWS):
        known = chunk[data.label].map(lambda v: isinstance(v, str) and not reading.problem(v))
        known = known.astype(bool)
        rows += len(chunk)
        declared = declared or bool(known.any())
        undeclared.add_refused(
            chunk[~known],
            data,
            reading.labels_in,
        )
    if rows and not declared and undeclared:
        raise DataError(
            f"expected labels that [data] labels declares, got none in {rows} row(s), which hold "
            f"{undeclared.in_words()}; nothing was changed. Declare the labels as the source "
            "spells them, or see [data] label"
        )
