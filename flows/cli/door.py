"""The commands about the HTTP door: open it, and who may ask there."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flows.adapters.child import until_signalled
from flows.cli.base import (
    CertificateOption,
    HostOption,
    JsonOption,
    KeyOption,
    ProxyOption,
    WorkspaceOption,
    door_at,
    open_workspace,
    show,
)

if TYPE_CHECKING:
    from flows.use_cases.documents import TokenEntry, TokenMade
    from flows.workspace.intake import IntakeHost
    from flows.workspace.workspace import Workspace

tokens = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Who may ask at the HTTP door, and what."
)


def open_door_place(workspace: str | None) -> "Workspace | IntakeHost":
    """The workspace named or stood in, or what stands for it on a host apart."""
    from flows.settings import prepare_environment, workspace_root
    from flows.workspace.layout import HANDED

    root = workspace_root(workspace)
    if not (root / ".s3t" / HANDED).exists():
        return open_workspace(workspace)
    from flows.workspace.intake import IntakeHost

    prepare_environment(root)
    return IntakeHost(root)


def api(
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Default: [api] port.")
    ] = None,
    host: HostOption = None,
    tls_cert: CertificateOption = "",
    tls_key: KeyOption = "",
    behind_proxy: ProxyOption = "",
    workspace: WorkspaceOption = None,
) -> None:
    """Open the HTTP door (requests, decisions, evidence) until stopped. `s3t serve` opens it
    too."""
    opened = open_door_place(workspace)
    from flows.api.server import serve

    serve(
        opened,
        door_at(host, port or opened.config.api.port, tls_cert, tls_key, behind_proxy),
        until_signalled(),
        lambda url: print(
            f"s3t: {url}/api/v1, for who sends a token (`s3t token make`); it is described at "
            f"{url}/api/v1/openapi.json",
            file=sys.stderr,
            flush=True,
        ),
    )


@tokens.command()
def make(
    name: Annotated[
        str,
        typer.Argument(
            help="Whose it is: a role, as 'privacy desk'. It stands in the ledger where its holder "
            "decides, so it may quote nobody's id."
        ),
    ],
    role: Annotated[
        list[str],
        typer.Option(
            "--role", help="asks, decides, erases, audits or predicts. May stand several times."
        ),
    ],
    days: Annotated[float, typer.Option("--days", help="It ends after so many days.")] = 90,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token, and show it this once."""
    opened = open_door_place(workspace)
    from flows.use_cases.tokens import make_token

    show(as_json, make_token(opened, name, role, days), _render_made)


@tokens.command("list")
def list_(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Every token there ever was, and whether it is good."""
    opened = open_door_place(workspace)
    from flows.use_cases.tokens import list_tokens

    show(as_json, {"tokens": list_tokens(opened)}, _render_listed)


@tokens.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `s3t token list` shows it.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a token back: from now on it opens nothing."""
    opened = open_door_place(workspace)
    from flows.use_cases.tokens import revoke_token

    show(as_json, revoke_token(opened, token_id), lambda t: [f"{_render(t)}. It opens nothing."])


def _render(entry: "TokenEntry") -> str:
    standing = f"until {entry['expires']}" if entry["good"] else "NOT GOOD ANY MORE"
    if entry["revoked"]:
        standing = f"revoked {entry['revoked']}"
    return f"{entry['id']}  {entry['name']}  ({', '.join(entry['roles'])})  {standing}"


def _render_made(made: "TokenMade") -> list[str]:
    return [made["token"], f"  {_render(made)}", "  It is shown this once. Keep it as a password."]


def _render_listed(document: "dict[str, list[TokenEntry]]") -> list[str]:
    return [_render(each) for each in document["tokens"]] or [
        "No token was made yet: `s3t token make NAME --role ROLE`."
    ]
