"""What every command of the command line uses: options, opening a workspace, showing what came
back."""

import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, chdir
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from s3t_core.errors import OrchestrationError, S3TError, StorageError, UsageError
from s3t_core.release_json import score_from_json

if TYPE_CHECKING:
    from rich.console import Console

    from flows.adapters.doors import Door
    from flows.progress import Say
    from flows.use_cases.documents import Answer, ExportEntry, ScoreEntry
    from flows.workspace.workspace import Workspace

D = TypeVar("D")


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Exact machine unlearning: train so that a deletion is a deactivation, erase, prove it.",
)

WorkspaceOption = Annotated[
    str | None,
    typer.Option(
        "--workspace", help="The workspace (default: S3T_WORKSPACE, else the current directory)."
    ),
]
HostOption = Annotated[
    str | None,
    typer.Option(
        "--host",
        help="Where it listens (default 127.0.0.1). Beyond this machine only with TLS or a proxy.",
    ),
]
CertificateOption = Annotated[
    str, typer.Option("--tls-cert", metavar="FILE", help="Certificate (PEM) and its chain.")
]
KeyOption = Annotated[str, typer.Option("--tls-key", metavar="FILE", help="Its key (PEM).")]
ProxyOption = Annotated[
    str,
    typer.Option(
        "--behind-proxy",
        metavar="NAME[,NAME]",
        help="Names under which a proxy of yours, which brings TLS, is asked.",
    ),
]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"s3t {version('s3t')}")
        raise typer.Exit


@app.callback()
def _whole(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Which release this is."),
    ] = False,
) -> None:
    """Exact machine unlearning: train so that a deletion is a deactivation, erase, prove it."""
    del version


JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def open_workspace(workspace: str | None) -> "Workspace":
    """The workspace named, else the one stood in; progress is shown on stderr."""
    from flows.progress import RichProgress, use
    from flows.settings import workspace_root
    from flows.workspace.workspace import enter

    opened = enter(workspace_root(workspace))
    use(RichProgress(console()))
    return opened


def open_if_there(workspace: str | None) -> "Workspace | None":
    """The workspace named or stood in, or None: `plan` works without one."""
    from flows.settings import CONFIG_NAME

    named = workspace or os.environ.get("S3T_WORKSPACE")
    if named or Path(CONFIG_NAME).is_file():
        opened = open_workspace(workspace)
        return opened if named or opened.state_dir.is_dir() else None
    from flows.progress import RichProgress, use

    use(RichProgress(console()))
    return None


def working(text: str) -> AbstractContextManager["Say"]:
    """A spinner on stderr."""
    from flows.progress import current

    return current().spinner(text)


def console() -> "Console":
    """The terminal, on stderr."""
    from rich.console import Console

    return Console(stderr=True)


def run_flow(opened: "Workspace", name: str, *arguments: Any, trains: bool = False) -> Any:
    """Run the flow of this name (flows.prefect_flows.NAME) on the workspace. Where the workspace's
    Prefect server is not there yet, it starts beside the imports of this process, once it is clear
    that this is a workspace with its keys; so does what jobs are forked from, for a flow that
    `trains`. Raises UsageError for a path that Prefect's API does
    not take."""
    _check_encodable([str(opened.root), *arguments])
    opened.keys  # noqa: B018  # read, or it is said why not
    from flows.progress import current
    from flows.settings import begin_prefect

    with standing_in(opened.root):
        if trains:
            opened.runner.begin()
        with current().spinner("Starting Prefect"):
            wait = begin_prefect(opened.root, opened.config.prefect.idle_minutes)
            flow = getattr(importlib.import_module(f"flows.prefect_flows.{name}"), name)
            wait()
        return flow(str(opened.root), *arguments)


def door_at(host: str | None, port: int, tls_cert: str, tls_key: str, behind_proxy: str) -> "Door":
    """The door that those options name. Raises UsageError."""
    from flows.adapters.doors import Door, names_of

    return Door(host or "127.0.0.1", port, tls_cert, tls_key, names_of(behind_proxy))


def standing_in(root: Path) -> AbstractContextManager[None]:
    """Work in the workspace's directory, whatever directory the command was called in. Prefect
    takes settings, of programs to run among them, from `prefect.toml`, `.env` and `pyproject.toml`
    of the directory that it stands in, which may be anybody's."""
    return chdir(root)


def _check_encodable(arguments: Iterable[object]) -> None:
    """What Prefect is told goes over the network as UTF-8; the name of a file may be any bytes.
    Raises UsageError."""
    for argument in arguments:
        if isinstance(argument, list | tuple):
            _check_encodable(argument)
        elif isinstance(argument, str) and argument != argument.encode("utf-8", "replace").decode():
            raise UsageError(
                f"expected a path whose name is UTF-8, got {argument}; rename it, then run the "
                "command again"
            )


def meaning(error: Exception) -> S3TError | None:
    """What an error of Prefect or of its client comes down to: the error of ours that it could not
    report, which is why the run failed, else that its server failed. None for anybody else's."""
    if type(error).__module__.partition(".")[0] not in ("prefect", "httpx", "httpcore"):
        return None
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, S3TError):
            return at
        at = at.__cause__ or at.__context__
    return OrchestrationError(
        f"expected Prefect's server (PREFECT_API_URL) to answer, got {type(error).__name__}; see "
        "that it and its database are up, then run the command again: what was done stands"
    )


def show(as_json: bool, document: D, lines: Callable[[D], list[str]]) -> None:
    """The document as one JSON text, or what `lines` makes of it, on stdout. Raises StorageError
    where that cannot be written."""
    texts = [json.dumps(document)] if as_json else lines(document)
    try:
        print(*texts, sep="\n", end="\n" if texts else "", flush=True)
    except OSError as error:
        sys.stdout = io.StringIO()  # Python would try again to write it out, and fail
        if isinstance(error, BrokenPipeError):
            raise  # whoever reads has enough
        raise StorageError(
            f"expected the standard output to take the answer, got {error.strerror}; what the "
            "command did stands: make room, then ask `s3t status` or `s3t requests`"
        ) from None


_ON_EXPORTS = {
    "destroyed": " (copies of it are yours to destroy)",
    "stale": " (it learned from somebody who was erased since, and is not where it was put: "
    "destroy every copy of it, then `s3t export DIR --replaces` it)",
}


_THERE = ("serves", "superseded")


def render_exports(exports: "Sequence[ExportEntry]") -> list[str]:
    """What `s3t status` prints of exported checkpoints that nothing replaced."""
    away = " (it is not there: moved, or never put there; `s3t export DIR --replaces` it)"
    gone = [e["export"] for e in exports if not e["in_place"] and e["standing"] in _THERE]
    return [
        f"Exported, {e['standing']}{_ON_EXPORTS.get(e['standing'], '')}: {e['export']} in "
        f"{e['place']}{away * (e['export'] in gone)}"
        for e in exports
        if e["standing"] != "replaced"
    ]


def render_registry(problems: list[str]) -> list[str]:
    """Where registry and ledger disagree, and what to do; or that nobody can say."""
    from flows.use_cases.status import UNASKED

    differ = [p for p in problems if not p.startswith(UNASKED)]
    return (
        [f"Whether the registry agrees is not known: {p}." for p in problems if p not in differ]
        + [f"REGISTRY: {p}." for p in differ]
        + (["`s3t erase` puts the registry right; find out who wrote to it."] if differ else [])
    )


def settings_given(path: str) -> bytes:
    """What stands in the file of --settings, nothing where none is given. Raises UsageError."""
    from flows.settings import read_settings

    if not path:
        return b""
    if not Path(path).is_file():
        raise UsageError(
            "expected a TOML file for --settings, got a path that is no file; check its spelling"
        )
    return read_settings(Path(path))


def percent(share: float | None) -> str:
    """A share of 0 to 1 as a percentage, "unknown" for None."""
    return "unknown" if share is None else f"{100 * share:.1f}%"


def held_out(score: "ScoreEntry | None", unmeasured: str = "") -> str:
    """A score on the held-out rows with its interval, or that it is unknown and why."""
    if score is None:
        return "held-out score unknown" + (f" ({unmeasured})" if unmeasured else "")
    found = score_from_json({**score})
    text = f"held-out {found.name} {found.in_words()}"
    other = found.otherwise
    if other is not None:
        way = "by votes" if other.combine == "votes" else "merged into one model"
        text += f"; {way} {other.in_words()}"
    return text


def render_answer(answer: "Answer") -> str:
    """What a model answers to one text, in words (flows.use_cases.documents.Answer)."""
    if "text" in answer:
        return str(answer["text"]) or "nothing"
    if "value" in answer:
        return f"{answer['value']:.4g}"
    chances = answer["probabilities"]
    if "label" in answer:
        return f"{answer['label']}  ({percent(chances[answer['label']])})"
    applying = [f"{label}  ({percent(chances[label])})" for label in answer["labels"]]
    return ", ".join(applying) or "no label"
