"""The commands about callbacks: what other systems are still to be told."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.base import JsonOption, WorkspaceOption, open_workspace, show

if TYPE_CHECKING:
    from flows.use_cases.documents import CallbacksListed

callbacks = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Other systems that are told what becomes of requests ([callbacks] in s3t.toml).",
)
_State = Literal["waiting", "delivered", "dead"]


@callbacks.command("list")
def list_(
    state: Annotated[
        _State | None,
        typer.Option("--state", help="waiting, delivered or dead; default: what did not go yet."),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Messages that wait, or were given up, and why."""
    opened = open_workspace(workspace)
    from flows.use_cases.callbacks import list_callbacks

    found: CallbacksListed = {
        "callbacks": list_callbacks(opened, [state] if state else ["waiting", "dead"])
    }
    show(as_json, found, _render_listed)


@callbacks.command()
def send(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Send once what is due now. `s3t serve` does it by itself."""
    opened = open_workspace(workspace)
    from flows.adapters.webhooks import Sender
    from flows.use_cases.callbacks import send_due

    sent = send_due(opened, Sender(opened.config.callbacks.most_seconds))
    show(
        as_json,
        sent,
        lambda _: [
            f"{sent['delivered']} delivered, {sent['failed']} to be tried again, "
            f"{sent['dead']} given up."
            if opened.config.callbacks.targets
            else "Nobody is told: [callbacks] targets in s3t.toml names no one."
        ],
    )


@callbacks.command()
def retry(
    messages: Annotated[
        list[str] | None, typer.Argument(metavar="MESSAGE...", help="Ids; none: all of them.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have messages that were given up, or wait, sent anew and now, under the ids that they had."""
    opened = open_workspace(workspace)
    from flows.use_cases.callbacks import retry as again

    count = again(opened, messages or [])
    show(as_json, {"retried": count}, lambda _: [f"{count} message(s) will be sent again."])


@callbacks.command()
def secret(
    target: Annotated[
        str,
        typer.Argument(
            metavar="N", help="The how-manieth of [callbacks] targets (or its URL): 1, 2, ..."
        ),
    ],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """The secret by which the receiver at a target tells that messages are ours. Hand it over as a
    password."""
    opened = open_workspace(workspace)
    from flows.use_cases.callbacks import signing_secret

    text = signing_secret(opened, target)
    show(as_json, {"secret": text}, lambda _: [text])


def _render_listed(listed: "CallbacksListed") -> list[str]:
    if not listed["callbacks"]:
        return ["No such callbacks."]
    return [
        f"{c['message']}  {c['type']} of {c['request']}, {c['state']} after {c['attempts']} "
        f"attempt(s){': ' * bool(c['answer'])}{c['answer']}"
        f"{', next ' + c['next'] if c['next'] else ''}, to {c['target'] or 'a target of before'}"
        for c in listed["callbacks"]
    ]
