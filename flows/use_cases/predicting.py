"""Load the version that serves, from the very files that were checked and by this package's own
code; label a file."""

import csv
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from flows.adapters.own_door import ask_own_door
from flows.progress import current
from flows.use_cases.documents import Answer
from flows.workspace import access
from flows.workspace.parts import HasConfig, HasRegistry, Lockable
from s3t_core.conversations import pair_of, shape_of, turns_of
from s3t_core.erasure.state import VersionRecord
from s3t_core.errors import DataError, StaleModel, UsageError
from s3t_core.files import writing_atomically

if TYPE_CHECKING:
    import pandas as pd

    from flows.adapters.registry import MlflowRegistry

BATCH = 1000
"""Rows that the model is asked at a time; it confirms that it may answer before and after each."""
WRITTEN = 64
"""The same of a language model, which takes longer."""
ENDINGS = (".csv", ".jsonl")

Write = Callable[[int, Answer], object]


class Served(HasConfig, HasRegistry, Lockable, Protocol):
    """What answers."""


class Answering(Protocol):
    """A loaded version."""

    def predict(self, asked: object, params: Mapping[str, object] | None = None) -> list[Answer]:
        """An answer to each text; `params`: how a language model writes (served_model.py). Raises
        StaleModel once it serves no longer."""

    def stream(self, asked: object, params: Mapping[str, object] | None = None) -> Iterator[Answer]:
        """What a language model writes behind one question, piece by piece (served_model.py).
        Raises the same, in the middle too."""

    def confirm(self) -> None:
        """That it may answer now. Raises StaleModel; any thread may ask."""


@dataclass(frozen=True)
class _Version:
    """What this package's own code made of a version's files, which asks the registry whether it
    serves."""

    code: Any
    registry: "MlflowRegistry"

    def predict(self, asked: object, params: Mapping[str, object] | None = None) -> list[Answer]:
        """As `Answering` says."""
        with self.registry.addressed():
            answers: list[Answer] = self.code.predict(None, asked, dict(params or {}))
        return answers

    def stream(self, asked: object, params: Mapping[str, object] | None = None) -> Iterator[Answer]:
        """As `Answering` says."""
        with self.registry.addressed():
            yield from self.code.predict_stream(None, asked, dict(params or {}))

    def confirm(self) -> None:
        """As `Answering` says."""
        with self.registry.addressed():
            self.code.confirm()


@dataclass(frozen=True)
class _Context:
    """What MLflow would tell the code of a version: where its files are, and what whoever loads it
    asks for."""

    artifacts: dict[str, str]
    model_config: dict[str, Any]


def answers_of(
    workspace: Served, asked: Sequence[object], params: Mapping[str, object]
) -> list[Answer]:
    """What the version that serves answers to texts, or to pairs of them: at the workspace's HTTP
    door where one is open on this machine, which has the model in memory, else loaded here. Raises
    as `champion_of` and `Answering.predict` do."""
    kind = "texts" if all(isinstance(each, str) for each in asked) else "pairs"
    writes = params if workspace.config.task.kind == "generation" else {}
    found = ask_own_door(workspace.state_dir, {kind: list(asked)}, writes)
    return champion_of(workspace).predict(list(asked), params) if found is None else found


def champion_of(workspace: Served) -> Answering:
    """`models:/NAME@champion`, once it is clear that its files are those that the ledger recorded.
    Raises UsageError when nothing serves yet, GuaranteeError for other files, and where the
    registry names another version or other files. It answers as long as that version serves, and
    follows no alias: another version's files would have to be held against the ledger first. The
    code that lies among the files is not run, whoever wrote it: this package's is.

    From a server MLflow brings the files to a directory that it never removes, stages that a later
    erasure must destroy among them: they come into the workspace instead, and are gone when the
    model is in memory.
    """
    return _loaded(workspace, _champion(workspace))


def _champion(workspace: Served) -> VersionRecord:
    champion = workspace.ledger.state().champion
    if champion is None:
        raise UsageError(
            "expected a model version to serve, got none; run `s3t ingest SOURCE` and `s3t train`"
        )
    return champion


def _loaded(workspace: Served, champion: VersionRecord) -> Answering:
    with current().spinner("Loading the model"):
        import transformers

        from flows.champion import Champion

        transformers.utils.logging.disable_progress_bar()
        code = Champion()
        registry = workspace.registry
        with (
            registry.checked_files(champion, workspace.state_dir / "loading") as files,
            registry.addressed(),
        ):
            code.load_context(_Context({"release": str(files)}, {"pinned": True}))
        return _Version(code, registry)


def predict_file(
    workspace: Served,
    source: str,
    out: Path,
    params: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Label each row of a source by its column `[data] text`, into a CSV or JSON Lines file: row
    number, label and probabilities, no text and no id. A row without a text has no label, and is
    counted (`unlabelled`). A language model writes behind the prompt, or the messages, of each row.
    The file is its owner's alone, and whole or not there.

    Raises UsageError, and DataError for a source with a row that cannot be read: then nothing is
    written.
    """
    _check_out(workspace, source, out)
    started, champion = time.monotonic(), _champion(workspace)
    next(
        iter(_texts(workspace, source)), None
    )  # a source that cannot be read is told before a model is loaded
    model, rows, unlabelled = _loaded(workspace, champion), 0, 0
    with current().spinner("Labelling") as say, writing_atomically(out) as file:
        form = _FORMS[workspace.config.task.kind]
        write = _writer(
            out,
            file,
            form,
            workspace.config.data.labels,
        )
        for batch in _texts(workspace, source):
            try:
                texts = [text for text in batch if text is not None]
                answers = iter(model.predict(texts, params) if texts else ())
            except StaleModel:
                raise StaleModel(
                    "expected one version to serve until every row was labelled, got another "
                    "meanwhile (an erasure or a training); nothing was written: run the command "
                    "again"
                ) from None
            for text in batch:
                rows += 1
                write(rows, form.unlabelled if text is None else next(answers))
            unlabelled += batch.count(None)
            say(f"{rows:,} rows")
    return {
        "rows": rows,
        "unlabelled": unlabelled,
        "out": str(out),
        "version": champion.version,
        "seconds": round(time.monotonic() - started, 1),
    }


def _check_out(
    workspace: Served,
    source: str,
    out: Path,
) -> None:
    if out.suffix.lower() not in ENDINGS:
        raise UsageError(
            f"expected --out to end in {' or '.join(ENDINGS)}, got {out.suffix or 'no ending'!r}"
        )
    if not out.parent.is_dir() or out.is_dir():
        raise UsageError(
            "expected --out to name a file in a directory that is there, got another path"
        )
    access.check_outside(workspace, out)
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise UsageError("expected --out to be another file than --file, got the same")


def _texts(workspace: Served, source: str) -> Iterator[list[object]]:
    """What the model is asked of each row of a source, in its order, some at a time; None for a row
    without a text. Raises DataError for a row that cannot be read."""
    from flows.adapters.sources import Source

    data, task = workspace.config.data, workspace.config.task
    writes, text = task.kind == "generation", data.text
    ids = dict.fromkeys(("subject", "held_out_by"), "" if writes else text)
    only = data.model_copy(
        update={
            **ids,
            "record": "",
            "label": data.label if writes else text,
        }
    )
    read = task if writes else None  # without their labels, rows of all other tasks are alike
    for chunk in Source([source], only, "", read, to_learn=False).chunks():
        _check_rows(chunk, data.messages or data.prompt or text)
        asked = [_asked(each, writes, bool(data.text_pair)) for each in chunk[text].tolist()]
        size = WRITTEN if writes else BATCH
        for begin in range(0, len(asked), size):
            yield asked[begin : begin + size]


def _asked(text: str | None, writes: bool, pairs: bool) -> object:
    """What a model is asked: the text, or both; of a language model's row the prompt, or its
    messages."""
    if text and pairs:
        return pair_of(text)
    if not text or not writes:
        return text or None
    turns = turns_of(text)
    if shape_of(turns) != "chat":
        return turns[0].content
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _check_rows(chunk: "pd.DataFrame", text: str) -> None:
    from flows.adapters.sources import MALFORMED, ROW

    wrong = chunk[chunk[MALFORMED] != ""]
    if len(wrong):
        first = wrong.iloc[0]
        raise DataError(
            f"expected rows whose column {text!r} can be read, got {len(wrong)} that cannot among "
            f"{len(chunk)}; the first is row {first[ROW]}: {first[MALFORMED]}. Nothing was "
            "written: mend or leave out those rows"
        )


@dataclass(frozen=True)
class _Form:
    """How the answers of a task stand in a file. `column`: of CSV, with what each row is answered;
    `unlabelled`: in the place of an answer to a row without a text."""

    column: str
    unlabelled: Answer
    has_probabilities: bool = True

    def cell(self, answer: Answer) -> object:
        """What stands in `column`, a list as JSON."""
        value = answer[self.column]
        return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


_FORMS = {
    "classification": _Form("label", {"label": "", "probabilities": {}}),
    "multilabel": _Form("labels", {"labels": None, "probabilities": {}}),
    "regression": _Form(
        "value",
        {"value": None},
        has_probabilities=False,
    ),
    "generation": _Form(
        "text",
        {"text": None},
        has_probabilities=False,
    ),
}


def _writer(
    out: Path,
    file: TextIO,
    form: _Form,
    labels: Sequence[str],
) -> Write:
    if out.suffix.lower() == ".jsonl":
        return lambda row, answer: file.write(
            json.dumps({"row": row, **answer}, ensure_ascii=False) + "\n"
        )
    table, named = csv.writer(file, lineterminator="\n"), labels if form.has_probabilities else ()
    table.writerow(
        [
            "row",
            form.column,
            *(f"probability {label}" for label in named),
        ]
    )

    def write(row: int, answer: Answer) -> None:
        shares = [answer["probabilities"].get(label, "") for label in named]
        table.writerow([row, form.cell(answer), *shares])

    return write
