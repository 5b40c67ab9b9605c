"""The version that serves as an ordinary Hugging Face checkpoint, put outside the workspace, on the
record; and what a checkpoint is, held against the ledger."""

import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flows.adapters import exports
from flows.adapters.loading import folder_in_use
from flows.progress import current
from flows.use_cases.documents import CheckpointDocument, ExportDocument, ExportEntry
from flows.use_cases.finding import Findable, may_tell
from flows.use_cases.quoting import check_quotes_nobody
from flows.workspace import access
from flows.workspace.parts import HasRegistry, HasStages, Lockable
from s3t_core.config import Config
from s3t_core.domain import Release, StageRecord
from s3t_core.erasure import events
from s3t_core.erasure.state import ExportRecord, State, VersionRecord
from s3t_core.errors import UsageError
from s3t_core.learning.recipe import Recipe
from s3t_core.learning.release import recipe_from_json


class Exportable(Findable, HasStages, HasRegistry, Lockable, Protocol):
    """What a checkpoint is made of."""

    @property
    def owner(self) -> str:
        """The name of the ledger."""


def export_champion(
    workspace: Exportable,
    directory: Path,
    replaces: Iterable[str] = (),
) -> ExportDocument:
    """Write the merged model of the version that serves into `directory`, which must be empty, not
    there, or an earlier export. `replaces`: names of earlier ones that nobody uses any more. No
    erasure begins meanwhile.

    Raises UsageError when the directory's path quotes somebody in the data (it stays in the
    ledger), when nothing serves, an erasure is open, or the architecture's own class means
    something else (learning.plain); NoLiveShard; GuaranteeError.
    """
    place = Path(os.path.normpath(directory.absolute()))
    place = place.parent.resolve() / place.name  # one spelling: the ledger compares them
    access.check_outside(workspace, place)
    _check_name(place)
    if may_tell(workspace):
        check_quotes_nobody(workspace, str(place), "a directory")
    with access.changing(workspace) as held, current().spinner("Exporting") as say:
        state = workspace.ledger.state()
        champion = _champion(state)
        replaced = _known(state, replaces)
        exports.check_place(place, state.exports.values())
        workspace.registry.check_files(champion)
        export = f"export-{uuid.uuid4().hex[:16]}"
        loading = workspace.state_dir / "loading"
        loading.mkdir(exist_ok=True)
        with folder_in_use(loading) as folder:
            made = folder / "checkpoint"
            recipe = recipe_from_json(champion.recipe)
            say("the shards as one model")
            _write(workspace, champion.release, recipe, made)
            description = _Description(workspace.config, champion, recipe, export)
            (made / "README.md").write_text(description.card(), encoding="utf-8")
            files = exports.write_record(made, description.record(workspace.owner, workspace.now()))
            size = sum(p.stat().st_size for p in made.iterdir())
            held.check()
            replaced += exports.give_way(place, state.exports.values())
            event = events.Exported(
                time=workspace.now(),
                export=export,
                release=champion.release.release_id,
                place=str(place),
                files={**files},
                replaces=tuple(dict.fromkeys(replaced)),
            )
            exports.make_way(place, export)
            try:
                workspace.ledger.append(event)
            except BaseException:
                exports.leave_way(place, export)
                raise
            exports.put(made, place, export)
    return {
        "export": export,
        "directory": str(place),
        "release": champion.release.release_id,
        "version": champion.version,
        "files": files,
        "bytes": size,
        "replaced": replaced,
    }


def _check_name(place: Path) -> None:
    """It stands in the ledger, which is JSON."""
    try:
        str(place).encode()
    except UnicodeEncodeError:
        raise UsageError(
            "expected DIR to have a name in UTF-8, got another; name another one"
        ) from None


def _champion(state: State) -> VersionRecord:
    if state.champion is None or state.champion.destroyed:
        raise UsageError(
            "expected a version that serves, got none; run `s3t ingest SOURCE` and `s3t train`"
        )
    if state.plan is not None:
        raise UsageError(
            "expected no erasure that was cut off, got one: what serves may have to be destroyed; "
            "run `s3t erase`, then export"
        )
    return state.champion


def _known(state: State, replaces: Iterable[str]) -> list[str]:
    names = list(dict.fromkeys(replaces))
    strange = [name for name in names if name not in state.exports]
    if strange:
        raise UsageError(
            f"expected --replaces to name exports, got {len(strange)} other name(s); `s3t status` "
            "lists them"
        )
    return names


def _write(
    workspace: Exportable,
    release: Release,
    recipe: Recipe,
    folder: Path,
) -> None:
    import transformers

    from s3t_core.learning.backbone import find_backbone
    from s3t_core.learning.plain import write_plain

    transformers.utils.logging.disable_progress_bar()
    if workspace.config.runner.max_memory:
        raise UsageError(
            "expected a backbone that fits into one device, got [runner] max_memory, for one that "
            "does not; export where there is more memory"
        )
    write_plain(
        find_backbone(recipe.model),
        recipe,
        release,
        workspace.store.get,
        folder,
    )
    if any(path.is_dir() for path in folder.iterdir()):
        raise UsageError(
            "expected a tokenizer with one chat template at most, got several, which a checkpoint "
            "keeps in a folder of their own; name one of them as its template"
        )


@dataclass(frozen=True)
class _Description:
    """What a checkpoint says of itself: for people, and for whoever looks it up."""

    config: Config
    version: VersionRecord
    recipe: Recipe
    export: str

    def record(self, ledger: str, time: str) -> dict[str, object]:
        """As JSON values."""
        release = self.version.release
        return {
            "export": self.export,
            "release": release.release_id,
            "ledger": ledger,
            "exported": time,
            "task": self.kind,
            "combine": "merged",
            "backbone": {"model": self.base, "sha256": self.recipe.backbone_digest},
            "stages": sorted(
                {s.digest for shard in release.shards() for s in _serving(release, shard)}
            ),
        }

    @property
    def kind(self) -> str:
        """Of task."""
        return str(self.recipe.task.get("kind", "classification"))

    @property
    def base(self) -> str:
        """The backbone's name: its id in the hub, or the last part of a path, which is nobody
        else's business."""
        return self.recipe.model if "@" in self.recipe.model else Path(self.recipe.model).name

    def card(self) -> str:
        """A model card (Mitchell et al., arXiv 1810.03993) in Hugging Face's form."""
        release = self.version.release
        live = [release.live_depth(shard) for shard in release.shards()]
        most = max(map(len, (r.sequence for r in release.replicas)), default=0)
        known = f"base_model: {self.base.partition('@')[0]}\n" if "@" in self.base else ""
        return f"""---
library_name: transformers
{known}tags: [s3t, machine-unlearning]
---

# A model that can forget, as one checkpoint

{_DOES[self.kind]} Fine-tuned from {self.base} with adapters that were trained on slices of the data
(S3T, ICLR 2025), {len(live)} shard(s) merged into one set of weights in float32.

- Release `{release.release_id}`, export `{self.export}`.
- Live depth of each shard, of {most}: {", ".join(map(str, live))}.
- On the held-out rows: {self._measured()}.

## How to use it

```python
{self._usage()}
```

The same answers as the shards give, merged: to the bit with `attn_implementation="eager"` and
float32, to the last bits otherwise.

## When somebody is erased

This directory asks nobody whether it may still answer. An erasure that reaches what it learned
destroys it where it was put; a copy of it stays yours to replace. `s3t verify DIR`, in the
workspace or with an exported ledger, says whether it is of the version that serves.
"""

    def _measured(self) -> str:
        """The score of this very model, merged; else that of what serves."""
        score = self.version.score
        if score is None:
            return "not measured"
        for way in (score, score.otherwise):
            if way is not None and way.combine == "merged":
                return f"{way.name} {way.in_words()}"
        return f"{score.name} {score.in_words()}, as the shards vote where it serves"

    def _usage(self) -> str:
        if self.kind == "generation":
            return _CHAT if self.config.data.messages else _PROMPT
        return _IMAGE if self.config.data.content == "image" else _TEXT


def _serving(release: Release, shard: int) -> tuple[StageRecord, ...]:
    replica = release.serving(shard)
    return replica.stages if replica else ()


_DOES = {
    "classification": "Answers with one label.",
    "multilabel": "Answers with the labels that apply: those with a probability of one half at "
    "least.",
    "generation": "Goes on with a text.",
}
_TEXT = """from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained(DIR)
tokenizer = AutoTokenizer.from_pretrained(DIR)
logits = model(**tokenizer(["a text"], truncation=True, return_tensors="pt")).logits"""
_IMAGE = """from transformers import AutoImageProcessor, AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained(DIR)
processor = AutoImageProcessor.from_pretrained(DIR)
logits = model(**processor(image, return_tensors="pt")).logits"""
_CHAT = """from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained(DIR), AutoTokenizer.from_pretrained(DIR)
asked = tokenizer.apply_chat_template(
    [{"role": "user", "content": "a question"}],
    add_generation_prompt=True, return_tensors="pt", return_dict=True,
)
written = model.generate(**asked, max_new_tokens=64)[0, asked["input_ids"].shape[1]:]
print(tokenizer.decode(written, skip_special_tokens=True))"""
_PROMPT = """from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained(DIR), AutoTokenizer.from_pretrained(DIR)
prompt = (tokenizer.bos_token or "") + "the beginning of a text"
asked = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
written = model.generate(**asked, max_new_tokens=64)[0, asked["input_ids"].shape[1]:]
print(tokenizer.decode(written, skip_special_tokens=True))"""


def list_exports(state: State) -> list[ExportEntry]:
    """Every export, oldest first, and what has become of it."""
    return [
        {
            "export": each.export,
            "release": each.release,
            "time": each.time,
            "place": each.place,
            "standing": state.standing_of(each.export),
            "in_place": exports.is_in_place(each),
        }
        for each in state.exports.values()
    ]


def is_checkpoint(path: Path) -> bool:
    """Whether a directory is of a model, and not of evidence."""
    return path.is_dir() and (
        (path / exports.RECORD).is_file()
        or (path / "config.json").is_file()
        or any(path.glob("*.safetensors"))
    )


def unknown_checkpoint(path: Path) -> CheckpointDocument:
    """What is told of a checkpoint that could be held against nothing."""
    problem = (
        "expected a valid ledger beside the checkpoint, got one that is not: which release it is "
        "was not looked up; name a whole ledger, or none in the workspace itself"
    )
    return _known_as(path, "", "", [problem])


def verify_checkpoint(path: Path, state: State) -> CheckpointDocument:
    """Which release the checkpoint in a directory is of, and whether that serves. It is known by
    the bytes of its weights, wherever it lies and whatever its record says. Raises UsageError for
    a directory that cannot be read."""
    try:
        there = exports.digests_of(path)
    except OSError as error:
        raise UsageError(
            "expected a checkpoint, a directory of files alone, got one in which something cannot "
            f"be read ({error.strerror or type(error).__name__})"
        ) from None
    weights = {n: d for n, d in there.items() if n.endswith(".safetensors")}
    found = [
        e
        for e in reversed(state.exports.values())
        if weights.items() and weights == _weights(e.files)
    ]
    if not found:
        return _known_as(path, "", "", _strange(path, state, bool(weights)))
    export = _likeliest(found, path)
    changed = sorted(n for n, d in export.files.items() if there.get(n) != d)
    more = sorted(set(there) - set(export.files))
    problems = [f"expected {n} as it was exported, got another or none" for n in changed]
    problems += [f"expected the files that were exported, got {n} beside them" for n in more]
    standing = state.standing_of(export.export)
    serves = state.release is not None and state.release.release_id == export.release
    if not serves or standing in ("stale", "destroyed"):
        problems.append(
            f"expected a checkpoint of the release that serves, got one of {export.release}, which "
            f"does not ({standing}); export again: s3t export DIR"
        )
    return _known_as(path, export.export, export.release, problems, serves)


def _likeliest(
    exports_of_it: list[ExportRecord],
    path: Path,
) -> ExportRecord:
    """Of several exports with the same weights, newest first, the one that the record in the
    directory names; else the newest."""
    record = exports.record_in(path) or {}
    return next((e for e in exports_of_it if e.export == record.get("export")), exports_of_it[0])


def _weights(files: Mapping[str, str]) -> dict[str, str]:
    return {n: d for n, d in files.items() if n.endswith(".safetensors")}


def _known_as(
    path: Path,
    export: str,
    release: str,
    problems: list[str],
    serves: bool = False,
) -> CheckpointDocument:
    return {
        "path": str(path),
        "export": export,
        "release": release,
        "serves": serves,
        "problems": problems,
    }


def _strange(path: Path, state: State, has_weights: bool) -> list[str]:
    """Why a checkpoint is none that the ledger knows."""
    record = exports.record_in(path)
    name = str(record.get("export", "")) if record else ""
    if name in state.exports and not has_weights:
        return [
            f"expected the weights of {name}, got none: {state.standing_of(name)}; export again: "
            "s3t export DIR"
        ]
    return [
        "expected weights that this ledger knows as exported, got others: they are another "
        "workspace's, or were changed"
    ]
