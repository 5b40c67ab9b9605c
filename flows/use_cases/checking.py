"""`s3t ingest --check`: what an ingest of a source would make of it. It reads, and changes nothing
anywhere.

1. what the source is: kind, delimiter, encoding, columns; which of them fit [data]
2. each row by the same expectations as an ingest, in the same words: refused ones by reason,
   undeclared labels by value
3. in a workspace, by the very checks of an ingest: the rule for ids, who was erased, tiers, what
   would be missing ([data] max_shrink); what an ingest looks at besides is named
4. a [data] to paste, with what the config says where it fits and what the columns look like where
   it does not

Texts and ids are counted, never shown.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from flows.adapters.sources import GIVEN, ROW, Source
from flows.adapters.sources.cells import GIVEN_RECORD, NOT_TEXT
from flows.adapters.sources.delimited import DELIMITERS
from flows.adapters.sources.labels import Meanings, Undeclared, looks_like_a_label
from flows.adapters.sources.parts import parts_of
from flows.adapters.sources.source import is_alike
from flows.adapters.sources.tables import ROLE_WORDS, words_of
from flows.adapters.sources.targets import Reading, reading_of
from flows.adapters.sources.text import likely_encoding
from flows.adapters.subjects import UNITED, Spellings, under_the_rule, with_given
from flows.progress import current
from flows.use_cases import admission
from flows.use_cases.next_steps import render_thin
from flows.workspace.parts import HasKeys, HasLedger
from flows.workspace.workspace import refuse_open_plan
from s3t_core.capacity.assignment import is_held_out, place
from s3t_core.config import Config, render_value
from s3t_core.erasure.state import State
from s3t_core.errors import ConfigError, DataError, UsageError, WorkspaceError
from s3t_core.identity import NotAnId
from s3t_core.keys import WorkspaceKeys
from s3t_core.snapshot import DUPLICATE, SnapshotBuilder, SnapshotCounts

_SAMPLE = 2000
_UNDECODED = 0.01
"""Of the rows. Where more do not decode, the file is in another encoding, and what is left of it is
no snapshot."""
_FORGOTTEN = 0.05
"""Of the rows. A label that so many have, and that is not declared, is told as a warning of its
own."""
_SUGGESTED = ("text", "label", "subject", "record", "held_out_by", "labels")
"""Keys of [data] that are written as the source fits them; of the others what the config says is
kept."""
_NO_SPOOL = Path("nowhere")


class Standable(admission.Admitting, HasKeys, HasLedger, Protocol):
    """What says whether an ingest would be let in."""


@dataclass(frozen=True)
class Standing:
    """What an ingest would find in a workspace. `append`, `shrink`: as of the ingest."""

    workspace: Standable
    state: State
    append: bool = False
    shrink: bool = False

    def refusals(self, sources: Sequence[str]) -> Iterator[Callable[[], object]]:
        """What an ingest looks at besides the source, before it reads; each raises an error where
        it refuses."""
        yield from (
            partial(
                admission.refuse_example_key,
                self.workspace.keys_dir,
                each,
            )
            for each in sources
        )
        yield partial(refuse_open_plan, self.state)
        yield partial(
            admission.id_basis,
            self.workspace,
            self.state,
            self.append,
            self.shrink,
        )
        if self.append:
            yield partial(
                admission.check_topology,
                self.workspace,
                self.state,
            )

    def refusals_of(self, builder: SnapshotBuilder) -> Iterator[Callable[[], object]]:
        """What an ingest looks at when it has read, each as above. `builder`: with what it counted
        and saw."""
        if not self.append:
            yield partial(
                admission.check_tiers,
                self.workspace,
                builder,
            )
            if not self.shrink:
                yield partial(
                    admission.check_shrinkage,
                    self.workspace,
                    self.state,
                    builder,
                )

    def builder(self) -> SnapshotBuilder:
        """One that knows who was erased. Nothing is given to it to be placed, so it writes
        nothing."""
        config = self.workspace.config
        return SnapshotBuilder(
            self.workspace.keys,
            config.topology,
            config.data.held_out,
            _NO_SPOOL,
            admission.suppressed_by(self.state),
            config.placement_tiers,
            config.data.id_rule,
        )


def check(
    config: Config,
    keys: WorkspaceKeys | None,
    sources: Sequence[str],
    standing: Standing | None = None,
) -> dict[str, Any]:
    """What an ingest of these sources would do. `problems` is empty where nothing is wrong with
    them, `takes` says whether an ingest would take what is left of them. `keys`: for who would be
    held out and where rows would go; `standing`: for who was erased, and what is there already,
    where there is a workspace."""
    problems: list[str] = []
    refused = _refusing(problems)
    with refused():
        config.require_labels()
    for each in standing.refusals(sources) if standing else ():
        with refused():
            each()
    found: dict[str, Any] = {
        "fits": False,
        "takes": False,
        "problems": problems,
        "read_as": "",
        "columns": [],
        "data": "",
        "differs": True,
        "notes": [],
        "not_looked_at": _not_looked_at(config, standing),
    }
    undecoded = ""
    with refused():
        try:
            source = Source(
                sources,
                config.data,
                config.tiers.column,
                config.task,
            )
        except DataError:
            found |= _proposed(config, sources)
            raise
        found |= _form(source)
        missing = source.problems()
        problems += missing
        suggested = _suggested(config, source)
        labels = config.data.labels or tuple(suggested.get("labels", ()))
        if not missing:
            seen = _rows(config, labels, keys, source, standing)
            found |= seen.document()
            undecoded = _render_undecoded(found)
            if not found["admitted"] and not found["erased"]:
                problems.append(_none_admitted(found))
            for each in standing.refusals_of(seen.builder_of(found)) if standing else ():
                with refused():
                    each()
        found["notes"] = source.notes + found["notes"] + _forgotten(found)
        unites = bool(found.get("warnings", {}).get(UNITED)) and not config.data.id_rule
        found |= _paste(config, suggested, unites) | (
            _proposed(config, sources) if undecoded else {}
        )
    takes = not problems
    problems += [undecoded] if undecoded else []
    return found | {"fits": not problems, "takes": takes}


def _refusing(problems: list[str]) -> Callable[[], Any]:
    """A context in which what an ingest would refuse with becomes a problem."""

    @contextmanager
    def refused() -> Iterator[None]:
        try:
            yield
        except (ConfigError, DataError, UsageError, WorkspaceError) as error:
            problems.append(str(error))

    return refused


def _form(source: Source) -> dict[str, object]:
    return {
        "read_as": source.read_as,
        "columns": source.names(),
        "files": len(source.tables),
        **source.form(),
    }


def _render_undecoded(found: dict[str, Any]) -> str:
    rows = sum(n for reason, n in found["reasons"].items() if reason.endswith(NOT_TEXT))
    if rows <= _UNDECODED * found["rows"]:
        return ""
    return (
        f"expected text in {found.get('encoding') or 'UTF-8'}, got {rows} of {found['rows']} rows "
        "with bytes that are not; set [data] encoding to what the file was written in, or save it "
        "as UTF-8"
    )


def _proposed(config: Config, sources: Sequence[str]) -> dict[str, object]:
    """Columns and a [data] to paste as they are in the likely encoding; {} where none is."""
    try:
        encodings = {
            likely_encoding(part.path)
            for part in parts_of(sources)
            if part.kind in ("delimited", "json")
        }
        if encodings - {""} == set():
            return {}
        data = config.data.model_copy(update={"encoding": max(encodings)})
        proposed = config.model_copy(update={"data": data})
        source = Source(
            sources,
            data,
            config.tiers.column,
            config.task,
        )
        return {
            "columns": source.names(),
            **_paste(proposed, _suggested(proposed, source)),
            "differs": True,
        }
    except DataError:
        return {}


def _not_looked_at(config: Config, standing: Standing | None) -> list[str]:
    if standing is None:
        return [
            "who was erased, which rule for ids the data there is was placed by, how much of it "
            "would be missing: no workspace is here"
        ]
    left_out = [
        "whether DVC, the store and the disk can take it, and whether files of somebody else's lie "
        "in data"
    ]
    if standing.append and standing.state.dataset is not None:
        left_out.append("which rows stand already, or contradict one that does (--append)")
    if config.placement_tiers:
        left_out.append("whether one person's rows disagree about the tier")
    return left_out


def _forgotten(found: dict[str, Any]) -> list[str]:
    """Labels that stand in a good part of the rows and are not declared: forgotten, rather than
    wrong."""
    return [
        f"{n} of {found['rows']} rows have the label {label!r}, which [data] labels lacks: declare "
        "it, or they stay out"
        for label, n in found.get("refused_labels", {}).items()
        if n >= _FORGOTTEN * found["rows"] and found["admitted"]
    ]


def _none_admitted(found: dict[str, Any]) -> str:
    if not found["rows"]:
        return "expected rows in the source, got none"
    reasons = ", ".join(f"{reason} ({n})" for reason, n in found["reasons"].items())
    labels = (
        f"; undeclared labels: {found['refused_labels_told']}"
        if found["refused_labels_told"]
        else ""
    )
    return (
        f"expected at least one valid row in the source, got {found['rows']} that are all refused: "
        f"{reasons}{labels}"
    )


# --- the rows


def _rows(
    config: Config,
    labels: tuple[str, ...],
    keys: WorkspaceKeys | None,
    source: Source,
    standing: Standing | None,
) -> "_Seen":
    chunks, seen = (
        source.chunks(),
        _Seen(
            config,
            labels,
            keys,
            standing.builder() if standing else None,
        ),
    )
    first = next(chunks, None)  # what cannot be read is told before the expectations are loaded
    with current().spinner("Loading the checks"):
        from flows.adapters.validation import RowValidator

        validator = RowValidator(
            config.data,
            labels or ("",),
            config.placement_tiers,
            config.task,
        )
    with current().spinner("Reading and validating rows"):
        for raw in chain([] if first is None else [first], chunks):
            chunk = under_the_rule(raw, config.data)
            verdicts = validator.check(chunk)
            seen.add(with_given(chunk, raw, config.data), verdicts.refused, verdicts.warned)
    return seen


class _Seen:
    """Counts over all rows; of ids only hashes are kept."""

    def __init__(
        self,
        config: Config,
        labels: tuple[str, ...],
        keys: WorkspaceKeys | None,
        builder: SnapshotBuilder | None,
    ) -> None:
        self._config, self._keys, self._builder = config, keys, builder
        self._erased, self._reading = 0, reading_of(config.task, labels)
        self._spellings, self._undeclared = Spellings(), Undeclared(labels)
        self._rows = self._refused = self._held_out = 0
        self._reasons: Counter[str] = Counter()
        self._warned: Counter[str] = Counter()
        self._labels: Counter[str] = Counter(dict.fromkeys(labels, 0))
        self._subjects: list[Any] = []
        self._records: list[Any] = []
        self._slices: Counter[Any] = Counter()

    def add(
        self,
        chunk: pd.DataFrame,
        refused: dict[int, list[str]],
        warned: dict[str, int],
    ) -> None:
        """One chunk with its verdicts."""
        data = self._config.data
        spoilt = chunk[ROW].isin(list(refused))
        admitted = chunk[~spoilt]
        self._undeclared.beside_declared |= not admitted.empty
        self._rows += len(chunk)
        self._refused += len(refused)
        self._reasons.update(reason for reasons in refused.values() for reason in reasons)
        self._warned.update(warned)
        self._undeclared.add_refused(
            chunk[spoilt],
            data,
            self._reading.labels_in,
        )
        self._spellings.add(admitted[data.subject])
        admitted = self._without_erased(admitted)
        self._labels.update(
            label for value in admitted[data.label] for label in self._reading.labels_in(value)
        )
        self._subjects.append(
            np.unique(pd.util.hash_array(admitted[data.subject].to_numpy(dtype=object)))
        )
        if data.record:
            pairs = admitted[data.subject] + "\0" + admitted[data.record]
            self._records.append(
                np.stack(
                    [
                        pd.util.hash_array(column.to_numpy(dtype=object))
                        for column in (pairs, admitted[data.subject])
                    ]
                )
            )
        if self._keys:
            self._place(self._keys, admitted)

    def _without_erased(self, admitted: pd.DataFrame) -> pd.DataFrame:
        """The rows that an ingest would not leave out as erased, by its own rule."""
        builder = self._builder
        if builder is None:
            return admitted
        left = self._left(admitted, builder)
        if tiers := self._config.placement_tiers:
            builder.tiers_seen.update(tiers.tier_of(v) for v in left[tiers.column].unique())
        return left

    def _left(self, admitted: pd.DataFrame, builder: SnapshotBuilder) -> pd.DataFrame:
        if not builder.suppresses:
            return admitted
        data = self._config.data
        records = admitted[data.record] if data.record else repeat("")
        known: dict[tuple[str, str, str, str], bool] = {}
        out = []
        for each in zip(
            admitted[data.subject],
            records,
            admitted[GIVEN],
            admitted[GIVEN_RECORD],
            strict=False,
        ):
            if each not in known:
                known[each] = builder.is_suppressed(*each)
            out.append(known[each])
        self._erased += sum(out)
        return admitted[~np.array(out, dtype=bool)]

    def _place(self, keys: WorkspaceKeys, admitted: pd.DataFrame) -> None:
        data, topology, tiers = (
            self._config.data,
            self._config.topology,
            self._config.placement_tiers,
        )
        held = {
            v: is_held_out(keys.placement, v, data.held_out)
            for v in admitted[data.split_by].unique()
        }
        out = admitted[data.split_by].map(held).astype(bool)
        self._held_out += int(out.sum())
        kept = admitted[~out]
        columns = kept[tiers.column].tolist() if tiers else repeat(None)
        for (subject, tier), rows in Counter(
            zip(
                kept[data.subject].tolist(),
                columns,
                strict=False,
            )
        ).items():
            number = tiers.tier_of(tier) if tiers else None
            span = topology.span() if tiers is None or number is None else tiers.span(number)
            self._slices[place(keys.placement, subject, topology.shards, span)] += rows

    def document(self) -> dict[str, Any]:
        """What was counted."""
        reasons, twice = Counter(self._reasons), 0
        subjects = np.unique(np.concatenate([*self._subjects, np.empty(0, np.uint64)]))
        if self._records:
            records = np.concatenate(self._records, axis=1)
            _, at, counts = np.unique(
                records[0],
                return_inverse=True,
                return_counts=True,
            )
            twice = int(counts[counts > 1].sum())
            subjects = np.unique(records[1][counts[at] == 1])
        if twice:
            reasons[DUPLICATE] = twice
        warned = self._warned | Counter(self._spellings.warned())
        found = {
            "rows": self._rows,
            "admitted": self._rows - self._refused - twice - self._erased,
            "refused": self._refused + twice,
            "erased": self._erased,
            "reasons": dict(reasons),
            "labels": dict(self._labels),
            "refused_labels": self._undeclared.shown(),
            "refused_labels_told": self._undeclared.in_words(),
            "subjects": len(subjects),
            "warnings": {k: n for k, n in warned.items() if n},
            "notes": [],
        }
        if self._keys and found["admitted"]:
            slices = [self._slices[s] for s in self._config.topology.slice_ids()]
            found |= {
                "held_out": self._held_out,
                "rows_per_slice": slices,
                "notes": render_thin(self._held_out, slices, self._config),
            }
        return found

    def builder_of(self, found: dict[str, Any]) -> SnapshotBuilder:
        """The builder of an ingest, with what was counted. Only where there is a workspace."""
        if self._builder is None:
            raise ValueError("expected a workspace's builder, got none")
        self._builder.counts = SnapshotCounts(
            records=found["admitted"], suppressed=found["erased"], subjects=found["subjects"]
        )
        return self._builder


# --- a [data] to paste


def _paste(
    config: Config,
    suggested: dict[str, object],
    unites: bool = False,
) -> dict[str, object]:
    """The text to paste, and whether s3t.toml says anything else. `unites`: whether a rule for ids
    would."""
    data = config.data
    said = {role: getattr(data, role) for role in (*_roles(config), "record", "held_out_by")}
    said["labels"] = list(data.labels)
    return {
        "data": _pasted(config, suggested, unites),
        "differs": any(suggested.get(k, type(v)()) != v for k, v in said.items()),
    }


def _roles(config: Config) -> tuple[str, ...]:
    """The roles that columns must have: a language model's rows have no label, and a text only
    where nothing else is said."""
    if config.task.kind != "generation":
        return "text", "label", "subject"
    return ("subject",) if config.data.of_conversations else ("text", "subject")


def _suggested(config: Config, source: Source) -> dict[str, Any]:
    """Columns and labels, as the config names them where the source has them, else as they look."""
    data, rows = config.data, source.sample(_SAMPLE)
    names = [n for n in source.names() if not source.tables[0].repeated([n])]
    if len(names) == 1 and any(d in names[0] for d in DELIMITERS):
        names = []  # a whole line of names, and no column
    taken: dict[str, Any] = {}
    for role in _roles(config):
        free = [n for n in names if n not in taken.values()]
        if guess := _configured(getattr(data, role), source, free) or _guess(role, free, rows):
            taken[role] = guess
    for role in ("record", "held_out_by"):
        if column := _configured(getattr(data, role), source, names):
            taken[role] = column
    if not config.task.has_labels:
        return taken
    labels = _labels(
        taken,
        rows,
        source,
        reading_of(config.task, ()),
    )
    if data.labels and not _are_spelt_otherwise(labels, data.labels):
        labels = list(data.labels)
    return taken | ({"labels": labels} if labels else {})


def _are_spelt_otherwise(labels: Sequence[str], declared: Sequence[str]) -> bool:
    """Whether labels of the source are declared ones in other letter case, and none is a declared
    one."""
    known, folded = Meanings(declared), {label.casefold() for label in declared}
    return any(label.casefold() in folded for label in labels) and not any(
        map(known.means_one, labels)
    )


def _configured(
    column: str,
    source: Source,
    names: list[str],
) -> str:
    """A column as the config names it, or the one that is nearly called so; "" where there is
    none."""
    if not column or not source.tables[0].lacking([column]):
        return column
    return next((name for name in names if is_alike(name, column)), "")


def _guess(
    role: str,
    names: list[str],
    rows: list[dict[str, object]],
) -> str:
    """The column for a role by the words in its name, else, for texts and labels, by what it
    holds."""
    for word in ROLE_WORDS[role]:
        for name in names:
            if word in words_of(name):
                return name
    names = [n for n in names if not words_of(n) & {*ROLE_WORDS["subject"]}]
    filled = {
        n: [
            str(r[n])
            for r in rows
            if r.get(n) not in (None, "") and not isinstance(r[n], list | dict)
        ]
        for n in names
    }
    if role == "text":
        words = {
            n: sum(len(v.split()) for v in values) / len(values)
            for n, values in filled.items()
            if values
        }
        best = max(words, key=lambda n: words[n], default="")
        return best if best and words[best] >= 2 else ""
    if role == "label":
        few = {
            n: len(set(values))
            for n, values in filled.items()
            if 2 <= len(set(values)) <= max(2, len(values) // 4)
        }
        return min(few, key=lambda n: few[n], default="")
    return ""


def _labels(
    taken: dict[str, Any],
    rows: list[dict[str, Any]],
    source: Source,
    reading: Reading,
) -> list[str]:
    """The labels in the sample, if they look like labels: several rows and people have each."""
    label, subject = taken.get("label"), taken.get("subject")
    if not label:
        return []
    if names := source.tables[0].classes(label):
        return list(names)
    write = source.columns.get(label)
    having: dict[str, set[str]] = {}
    for number, row in enumerate(rows):
        value = row.get(label)
        if value in (None, ""):
            continue
        try:
            text = value if isinstance(value, str) or write is None else write(value)
        except NotAnId:
            continue  # its row will be refused
        for each in reading.labels_in(str(text)):
            having.setdefault(each, set()).add(
                str(row.get(subject, number)) if subject else str(number)
            )
    labels = sorted(
        v
        for v, people in having.items()
        if len(people) > 1 and looks_like_a_label(v) and v == v.strip()
    )
    return labels if 2 <= len(labels) <= 50 and len(labels) * 2 >= len(having) else []


def _pasted(
    config: Config,
    suggested: dict[str, Any],
    unites: bool,
) -> str:
    lines = ["[data]"]
    ask = {
        "text": "which column holds the text?",
        "label": "which column holds the label?",
        "subject": "which column says whose row it is?",
    }
    for role, question in ((role, ask[role]) for role in _roles(config)):
        lines.append(
            f"{role} = {_toml(suggested[role])}"
            if role in suggested
            else f'# {role} = "..."  # {question}'
        )
    if "record" in suggested:
        lines.append(f"record = {_toml(suggested['record'])}")
    if "labels" in suggested:
        declared = suggested["labels"] == list(config.data.labels)
        lines.append(
            f"labels = [{', '.join(map(_toml, suggested['labels']))}]"
            + (
                ""
                if declared
                else "  # those of the first rows; see that every one there is stands here"
            )
        )
    elif config.task.has_labels:
        lines.append('# labels = ["...", "..."]  # every label there is, in a fixed order')
    if "held_out_by" in suggested:
        lines.append(f"held_out_by = {_toml(suggested['held_out_by'])}")
    if unites:
        lines.append(
            '# id_rule = ["trim", "case"]  # one person in two spellings? E-mail addresses: before '
            "any data"
        )
    lines += [
        f"{key} = {render_value(value)}"
        for key, field in type(config.data).model_fields.items()
        if key not in _SUGGESTED and (value := getattr(config.data, key)) != field.default
    ]
    return "\n".join(lines) + "\n"


def _toml(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
