"""The whole story on real data, for a newcomer: from records to a certificate, in a workspace of
its own."""

import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows.adapters.shared_prefect import SharedServer
from flows.cli.base import held_out, percent, render_answer, standing_in
from flows.examples import EXAMPLE_KEY, example_config, rows
from flows.progress import RichProgress, current, use
from flows.settings import start_prefect
from flows.use_cases.documents import (
    ErasureDocument,
    IngestDocument,
    StatusDocument,
    TrainingDocument,
)
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.errors import GuaranteeError, StaleModel, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from flows.use_cases.predicting import Answering


QUESTIONS = (
    "I would travel the world and open a shelter for dogs, I would never work again",
    "fresh bread, rain on hot pavement, and my grandmother's kitchen",
    "flying, because I could see everyone I love without any traffic",
)
"""Written for the demo; nobody's data."""

_MARKER = "made-by-s3t-demo"
"""Only a directory that this command made is ever removed by it."""

_RESULT = Path(__file__).parents[2] / "data.dvc"


def run_demo(folder: Path, console: "Console") -> dict[str, object]:
    """Run every step in `folder`, which is made anew. Returns the numbers that the closing screen
    shows."""
    started = time.monotonic()
    use(RichProgress(console))
    workspace = _fresh(folder)
    say = _Speaker(console)
    with standing_in(folder):
        taken = _ingest(say, folder)
        trained = _train(say, folder)
        old = _ask(say, workspace)
        _request(say, workspace)
        erased = _erase(say, workspace, trained, old)
    verified = _verify(say, folder)
    from flows.use_cases.status import status_of

    status = status_of(workspace)
    _closing(console, folder, taken, trained, erased, status, verified, time.monotonic() - started)
    return {
        "ingest": taken,
        "train": trained,
        "erase": erased,
        "status": status,
        "verify": verified,
        "seconds": round(time.monotonic() - started, 1),
    }


def _ingest(say: "_Speaker", folder: Path) -> IngestDocument:
    say.step(
        "1. Ingest",
        "Real conversations (chitchat); each sender is a data subject, placed by a keyed hash of "
        "the id.",
    )
    with current().spinner("Starting Prefect"):
        start_prefect()
    from flows.prefect_flows.ingest import ingest

    taken: IngestDocument = ingest(str(folder), "example:chitchat")
    say.tell(
        f"{taken['records']} training records, {taken['held_out']} held out, {taken['subjects']} "
        f"people; slice contents {_compare(folder)}."
    )
    return taken


def _train(say: "_Speaker", folder: Path) -> TrainingDocument:
    say.step(
        "2. Train",
        "3 shards x 3 slices x 3 orders of the slices. Stage i of a replica adapts one block of "
        "MiniLM and sees only the first i slices.",
    )
    from flows.prefect_flows.train import train

    trained: TrainingDocument = train(str(folder))
    say.tell(
        f"{trained['trained']} stages in {trained['seconds']:.0f} s; version {trained['version']} "
        f"serves; {held_out(trained['score'])}."
    )
    return trained


def _ask(say: "_Speaker", workspace: Workspace) -> "Answering":
    """The model that answered."""
    champion = f"models:/{workspace.config.system.name}@champion"
    say.step("3. Ask the model", f"Loaded from the registry as anyone would: {champion}.")
    from flows.use_cases.predicting import champion_of

    model = champion_of(workspace)
    _answers(say, model)
    return model


def _request(say: "_Speaker", workspace: Workspace) -> None:
    say.step(
        "4. Three people ask to be erased",
        "Their ids go to a file only the eraser reads; everything else knows keyed digests.",
    )
    from flows.use_cases.taking import take_requests

    for request in take_requests(workspace, _three_subjects()):
        say.tell(f"{request.request_id}, due {request.due}")


def _erase(
    say: "_Speaker", workspace: Workspace, trained: TrainingDocument, old: "Answering"
) -> ErasureDocument:
    """`old`: a model that was loaded before."""
    say.step(
        "5. Erase",
        "No retraining: the stages that saw their slices are deactivated, then destroyed.",
    )
    from flows.prefect_flows.erase import erase
    from flows.use_cases.predicting import champion_of

    erased: ErasureDocument = erase(str(workspace.root))
    say.tell(
        f"{erased['deactivated']} of {trained['trained']} stages deactivated and destroyed in "
        f"{erased['seconds']:.0f} s; version {erased['version']} serves."
    )
    refused = _refuses(old)
    say.tell(f"The model that was loaded before now says: {refused}")
    _answers(say, champion_of(workspace))
    return erased


def _verify(say: "_Speaker", folder: Path) -> dict[str, object]:
    say.step(
        "6. Verify",
        "Each certificate is signed; checking needs the public key and nothing else of the system.",
    )
    from flows.use_cases.verifying import verify_path

    result = verify_path(folder / ".s3t" / "certificates", folder / ".s3t" / "keys" / "signing.pub")
    if not result["valid"]:
        raise GuaranteeError(f"expected valid certificates, got: {result['problems']}")
    return result


class _Speaker:
    def __init__(self, console: "Console") -> None:
        self._console = console

    def step(self, title: str, about: str) -> None:
        self._console.print(f"\n[bold]{title}[/bold]  [dim]{about}[/dim]", highlight=False)

    def tell(self, text: str) -> None:
        self._console.print(f"   {text}", highlight=False, markup=False)


def _fresh(folder: Path) -> Workspace:
    """An empty demo workspace; only an earlier demo's is ever removed. Raises UsageError for
    anything else."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / ".s3t" / _MARKER).is_file():
            raise UsageError(
                f"expected an empty directory or an earlier demo at {folder.name}, got something "
                "else; name another with --dir"
            )
        SharedServer(folder / ".s3t" / "prefect", 0).stop()
        shutil.rmtree(folder)
    with current().spinner("Making a workspace (git, DVC, keys)"):
        workspace = create_workspace(folder, example_config(), EXAMPLE_KEY)
        (workspace.state_dir / _MARKER).touch()
        return workspace


def _compare(folder: Path) -> str:
    """The example key places and digests the example the same everywhere: compare with the
    committed data.dvc."""
    if not _RESULT.is_file():
        return "not compared (no data.dvc of the project at hand)"
    committed, mine = (
        yaml.safe_load(p.read_text())["meta"]["s3t"]["content"]
        for p in (_RESULT, folder / "data.dvc")
    )
    if committed != mine:
        raise GuaranteeError(
            "expected the slice contents that the project's data.dvc records, got others; the "
            "example data or the way it is read has changed"
        )
    return "equal the committed ones"


def _three_subjects() -> list[str]:
    """Three people with a fair number of rows: the first in the set's own order."""
    count = Counter(row["subject"] for row in rows("chitchat"))
    return [subject for subject, n in count.items() if 5 <= n <= 30][:3]


def _answers(say: _Speaker, model: "Answering") -> None:
    for question, answer in zip(QUESTIONS, model.predict(list(QUESTIONS)), strict=True):
        say.tell(f'"{question[:48]}..." -> {render_answer(answer)}')


def _refuses(model: "Answering") -> str:
    try:
        model.predict(list(QUESTIONS))
    except StaleModel as error:
        return str(error)
    raise GuaranteeError("expected a model loaded before the erasure to refuse, got answers")


def _closing(
    console: "Console",
    folder: Path,
    taken: IngestDocument,
    trained: TrainingDocument,
    erased: ErasureDocument,
    status: StatusDocument,
    verified: dict[str, Any],
    seconds: float,
) -> None:
    from rich.panel import Panel
    from rich.table import Table

    table = Table(show_header=True, header_style="bold", box=None, padding=(0, 3, 0, 0))
    table.add_column("")
    table.add_column("before")
    table.add_column("after")
    depths = ", ".join(str(s["live_depth"]) for s in status["shards"])
    table.add_row("model version", trained["version"], str(erased["version"]))
    table.add_row("training records", str(taken["records"]), str(status["records"]))
    table.add_row("live depth of the shards", "3, 3, 3", depths)
    table.add_row("held-out accuracy", percent(trained["accuracy"]), percent(status["accuracy"]))
    table.add_row(
        "stages", str(trained["trained"]), str(trained["trained"] - erased["deactivated"])
    )
    console.print(Panel(table, title="Three people erased, nothing retrained", expand=False))
    budget = status["deletion_budget"]
    name = folder.name if folder.parent == Path.cwd() else str(folder)
    activate = Path(sys.executable).with_name("activate")
    enter = (
        []
        if shutil.which("s3t") or not activate.exists()
        else [f"  source {os.path.relpath(activate)}"]
    )
    certificate = verified["certificates"][0]["file"]
    for line in (
        f"Certificates: {len(verified['certificates'])}, all valid. Budget: no shard is dead; at "
        f"least {budget['certain_requests_left']} more request(s) of one person each cannot "
        "kill one, whoever asks.",
        f"The whole story took {seconds:.0f} s.",
        "",
        "What to try next:",
        *enter,
        f"  cd {name}",
        "  s3t status                                   what serves, what is left",
        f"  s3t verify .s3t/certificates/{certificate}",
        '  s3t predict "the smell of rain"',
        "  s3t retrain                                  train anew what was deactivated",
        "  s3t audit                                    what an auditor reads: HTML, PDF, JSON",
        "With data of your own: s3t init my-model, then the README.",
    ):
        console.print(line, highlight=False, markup=False)
