"""`s3t intake`: hosts apart that take requests."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.base import JsonOption, WorkspaceOption, open_workspace, show
from flows.cli.requests import ByOption
from s3t_core.errors import UsageError
from s3t_core.files import write_new

if TYPE_CHECKING:
    from flows.use_cases.documents import IntakeEntry

intakes = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Hosts apart that take requests, and can neither read nor decide (docs/http.md).",
)
_DirectoryArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The directory of the host's door, its own.")
]


@intakes.command()
def key(directory: _DirectoryArgument, as_json: JsonOption = False) -> None:
    """On the host: make its key, and show the public part."""
    from flows.use_cases.intakes import make_intake_key

    public = make_intake_key(directory.resolve())
    show(as_json, {"public": public}, lambda found: [found["public"]])


@intakes.command()
def add(
    name: Annotated[str, typer.Argument(help="How it is called, in words: 'web site'.")],
    public: Annotated[
        str, typer.Option("--key", metavar="HEX", help="What `s3t intake key` showed there.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write here what is to be carried there. It holds keys: carry it as a password.",
        ),
    ],
    by: ByOption,
    database: Annotated[
        str, typer.Option("--database", metavar="URL", help="The database's URL from there.")
    ] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """At the workspace: let a host take requests."""
    opened = open_workspace(workspace)
    from flows.use_cases.intakes import add_intake

    if out.exists() or not os.access(out.parent, os.W_OK | os.X_OK):
        raise UsageError(
            "expected a new file for --out in a directory that can be written to, got another; "
            "nothing was changed"
        )
    host, content = add_intake(opened, name, public, by, database)
    if not write_new(out, content, 0o600):
        raise UsageError(
            "expected a new file for --out, got one that came meanwhile: the host was added, and "
            f"its file is lost. `s3t intake remove {host[:16]}`, then add another key of it"
        )
    show(
        as_json,
        {"key": host, "file": str(out)},
        lambda found: [
            f"Added. Carry {found['file']} to the host, run `s3t intake install` there, and "
            "destroy it here.",
            f"  key {found['key']}",
        ],
    )


@intakes.command()
def install(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `s3t intake add` wrote.")],
    directory: _DirectoryArgument,
    as_json: JsonOption = False,
) -> None:
    """On the host: install what the workspace handed out."""
    from flows.use_cases.intakes import install_intake

    host = install_intake(directory.resolve(), file)
    show(
        as_json,
        {"key": host.handed.host},
        lambda found: [
            f"Installed. `s3t token make` and `s3t api` in {directory} open its door; destroy "
            f"{file}.",
            f"  key {found['key']}",
        ],
    )


@intakes.command("list")
def list_(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Every host that took requests."""
    opened = open_workspace(workspace)
    from flows.use_cases.intakes import list_intakes

    show(as_json, {"hosts": list_intakes(opened.ledger.state())}, _render_listed)


@intakes.command()
def remove(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="As `s3t intake list` shows it.")],
    by: ByOption,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """At the workspace: let a host take no more requests."""
    opened = open_workspace(workspace)
    from flows.use_cases.intakes import remove_intake

    show(
        as_json,
        remove_intake(opened, key_id, by),
        lambda found: [
            _render(found),
            "Take its account away too: REVOKE s3t_requests FROM its role, or DROP ROLE.",
        ],
    )


def _render(entry: "IntakeEntry") -> str:
    standing = "takes requests" if entry["takes_requests"] else "removed"
    return f"{entry['key'][:16]}  {entry['name']}  {standing}"


def _render_listed(document: "dict[str, list[IntakeEntry]]") -> list[str]:
    return [_render(each) for each in document["hosts"]] or ["No host apart takes requests."]
