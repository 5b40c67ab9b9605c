"""The commands about evidence: write it, check it, and change the key that signs it."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.base import (
    JsonOption,
    WorkspaceOption,
    open_workspace,
    render_registry,
    show,
    standing_in,
    working,
)
from flows.cli.requests import ByOption
from flows.workspace import access
from s3t_core.erasure.outcome import render_outcome
from s3t_core.errors import UsageError, WorkspaceError

if TYPE_CHECKING:
    from flows.use_cases.documents import CheckpointDocument

UNDECIDED = 3
"""The exit code of `s3t verify` for evidence that is signed, and undecided all the same."""


def verify(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="A certificate, a directory of them, a "
            "report, a checkpoint, an evidence bundle (.zip) or an exported "
            "ledger (.jsonl); several, each checked. Or a directory that `s3t export` wrote, held "
            "against this workspace's ledger, or one that is given beside it.",
        ),
    ],
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            help="The controller's public key (PEM); again for "
            "each they used. Default: the workspace's own, which lies "
            "beside the evidence and so proves less.",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            help="An earlier checkpoint that you kept: a bundle, or a ledger, must continue it.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check certificates, reports, bundles, checkpoints and ledgers offline. Exits 3 when all is
    signed, but a document by a key that was replaced: alone it proves nothing."""
    from flows.use_cases.verifying import verify_paths

    evidence, models = _sorted(paths)
    publics: list[Path] = []
    if evidence or key:
        publics = [Path(k) for k in key] if key else _own_public_keys(workspace)
    result: dict[str, Any] = {
        "valid": True,
        **{kind: [] for kind in ("problems", "undecided", "certificates", "keys")},
    }
    if evidence:
        result = verify_paths(evidence, publics, Path(checkpoint) if checkpoint else None)
    if models:
        found = _models(models, evidence, publics, workspace, is_valid=result["valid"])
        problems = [*result["problems"], *_problems_of(found)]
        valid = result["valid"] and not problems
        result |= {"valid": valid, "problems": problems, "exports": found}
    show(as_json, {**result, "own_key": bool(evidence) and not key}, _render_verified)
    if not result["valid"]:
        sys.exit(1 if result["problems"] else UNDECIDED)


def _sorted(paths: list[str]) -> tuple[list[Path], list[Path]]:
    """Evidence, and directories that `s3t export` wrote."""
    from flows.use_cases.exporting import is_checkpoint

    given = [Path(p) for p in paths]
    models = [p for p in given if is_checkpoint(p)]
    return [p for p in given if p not in models], models


def _models(
    models: list[Path],
    evidence: list[Path],
    publics: list[Path],
    workspace: str | None,
    is_valid: bool,
) -> "list[CheckpointDocument]":
    """What each exported checkpoint is, by the one ledger that was given, else by the workspace's
    own. `is_valid`: all of that evidence is; else none is held against it."""
    from flows.use_cases.exporting import unknown_checkpoint, verify_checkpoint
    from flows.use_cases.verifying import state_of_ledger

    ledgers = [p for p in evidence if p.suffix == ".jsonl"]
    if len(ledgers) > 1:
        raise UsageError(f"expected one ledger (.jsonl) beside a checkpoint, got {len(ledgers)}")
    if ledgers and not is_valid:
        return [unknown_checkpoint(path) for path in models]
    state = (
        state_of_ledger(ledgers[0], publics)
        if ledgers
        else open_workspace(workspace).ledger.state()
    )
    return [verify_checkpoint(path, state) for path in models]


_Since = Annotated[
    str,
    typer.Option(
        "--since",
        metavar="TIME",
        help="The report's period begins here: a day, "
        "a time, or how far back (30d). Default: with the ledger.",
    ),
]
_Out = Annotated[
    str,
    typer.Option("--out", metavar="DIR", help="Where the report goes (default: .s3t/reports/DAY)."),
]
_Bundle = Annotated[
    str,
    typer.Option(
        "--bundle",
        metavar="FILE.zip",
        help="Every certificate with its proofs and a verifier that runs by itself.",
    ),
]
_Ledger = Annotated[
    str, typer.Option("--ledger", metavar="FILE.jsonl", help="The whole ledger, signed.")
]
_Kept = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="A checkpoint that the auditor kept; the bundle proves that the ledger continues it.",
    ),
]
_Replay = Annotated[
    str,
    typer.Option(
        "--replay",
        metavar="N|all",
        help="Train so many random live stages again and compare bytes.",
    ),
]


def audit(
    since: _Since = "",
    out: _Out = "",
    bundle: _Bundle = "",
    ledger: _Ledger = "",
    kept: _Kept = None,
    replay: _Replay = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the compliance report (HTML, PDF, signed JSON), or with --bundle, --ledger, --replay
    other evidence."""
    _check_audit(bundle, ledger, replay)
    opened = open_workspace(workspace)
    for path in filter(None, (bundle, ledger, out)):
        access.check_outside(opened, Path(path))
    from flows.use_cases.evidence import write_bundle, write_ledger
    from flows.use_cases.reporting import parse_since, write_report

    begin = parse_since(since, opened.clock.now())
    document: dict[str, Any] = {}
    if replay:
        from flows.use_cases.replaying import replay as again

        with standing_in(opened.root):
            document["replay"] = again(opened, None if replay == "all" else int(replay))
    if bundle:
        document["bundle"] = write_bundle(opened, Path(bundle), [Path(c) for c in kept or []])
    if ledger:
        document["ledger"] = write_ledger(opened, Path(ledger))
    if since or out or not document:
        with working("Writing the report"):
            document["report"] = write_report(opened, begin, Path(out) if out else None)
    from flows.use_cases.status import registry_problems

    document["registry"] = registry_problems(opened)
    show(as_json, document, _render_audit)
    if replay and not document["replay"]["valid"]:
        print("s3t: the replay is no pass: see each stage's result", file=sys.stderr)
        sys.exit(1)


def _check_audit(bundle: str, ledger: str, replay: str) -> None:
    if (
        replay
        and replay != "all"
        and (not replay.isascii() or not replay.isdigit() or int(replay) < 1)
    ):
        raise UsageError('expected --replay to be a number of stages or "all", got something else')
    for name, ending in ((bundle, ".zip"), (ledger, ".jsonl")):
        if name and (Path(name).suffix != ending or not Path(name).absolute().parent.is_dir()):
            raise UsageError(
                f"expected a file name ending in {ending}, in a directory that is there, got "
                "another"
            )


def rotate_key(
    by: ByOption,
    lost: Annotated[
        bool, typer.Option("--lost", help="The old key is gone and cannot vouch.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign with another key from now on, on the record. Hand its public part to whoever
    verifies."""
    opened = open_workspace(workspace)
    from flows.use_cases.rotating import rotate_signing_key

    changed = rotate_signing_key(opened, by, lost)
    show(
        as_json,
        changed,
        lambda _: [
            f"Key {changed['new'][:16]}... signs from now on; hand .s3t/keys/signing.pub to "
            "whoever verifies, and back .s3t/keys up. What the old key signed counts where the "
            "ledger shows it to be older: `s3t audit --bundle`."
        ],
    )


def move_checkpoints(
    by: ByOption,
    lost: Annotated[
        bool, typer.Option("--lost", help="What was at the old place is gone.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep checkpoints outside at another place, on the record: write it into s3t.toml first. The
    ledger is held against those at the old place."""
    from flows.settings import prepare_environment, workspace_root
    from flows.use_cases.rotating import move_checkpoints as act

    root = workspace_root(workspace)
    prepare_environment(root)
    moved = act(root, by, lost)
    now = f"at {moved['new']}" if moved["new"] else "nowhere outside the workspace"
    show(as_json, moved, lambda _: [f"Checkpoints are kept {now} from now on."])


COMMANDS: dict[str, Callable[..., None]] = {
    "verify": verify,
    "rotate-key": rotate_key,
    "move-checkpoints": move_checkpoints,
    "audit": audit,
}


def _own_public_keys(workspace: str | None) -> list[Path]:
    from flows.settings import workspace_root

    try:
        workspace_root(workspace)
    except WorkspaceError:
        if workspace is not None:
            raise
        raise UsageError(
            "expected the controller's public key, got none, and no workspace is here that has its "
            "own: pass --key signing.pub, as they gave it to you"
        ) from None
    return sorted((workspace_root(workspace) / ".s3t" / "keys").glob("*.pub"), reverse=True)


def _render_closing(closing: dict[str, Any]) -> str:
    outcome = render_outcome(closing["closed"], closing.get("rows", 0))
    ended = f"{outcome} {closing['certified']}"
    return f"{_word(closing)}: {closing['request']}{_file_of(closing)}, {ended}"


def _render_checkpoint(checkpoint: dict[str, Any]) -> str:
    return (
        f"{_word(checkpoint)}: {checkpoint['file']}, "
        f"a checkpoint of {checkpoint['size']} entries, "
        f"signed {checkpoint['signed']}"
    )


def _render_report(report: dict[str, Any]) -> str:
    return (
        f"{_word(report)}: {report['file']}, "
        f"a report on {report['since']} to {report['until']}: "
        f"{report['requests']} request(s), "
        f"{report['deadlines_missed']} deadline(s) missed"
    )


def _render_verified(d: dict[str, Any]) -> list[str]:
    if len(d.get("files", ())) > 1:
        found = d.get("exports", [])
        models = [*_render_models(found), *(f"NOT VALID: {p}" for p in _problems_of(found))]
        own = [
            line
            for each in d["files"]
            for line in (
                f"{each['path']}:",
                *(f"  {line}" for line in _render_verified({**each, "own_key": False})),
            )
        ]
        between = [f"NOT VALID: {p}" for p in d["between"]]
        between += [f"UNDECIDED: {p}" for p in d["undecided_between"]]
        return [*own, *models, *between, *_render_own_key(d)]
    lines = [_render_closing(each) for each in d["certificates"]]
    lines += [_render_checkpoint(each) for each in d.get("checkpoints", [])]
    lines += [_render_report(each) for each in d.get("reports", [])]
    if d.get("checkpoint"):
        lines.append(
            f"The ledger of {d['checkpoint']['size']} entries, signed {d['checkpoint']['time']}, "
            "closes each."
        )
    if d.get("ledger"):
        ledger = d["ledger"]
        lines.append(
            f"valid: {ledger['size']} entries, signed {ledger['signed']}: {ledger['requests']} "
            f"request(s), {ledger['certified']} closed by a certificate."
        )
    lines += _render_models(d.get("exports", []))
    lines += [f"UNDECIDED: {p}" for p in d["undecided"]]
    lines += [f"NOT VALID: {p}" for p in d["problems"]]
    lines += [f"Verified with key {k}." for k in d["keys"]]
    lines += _render_own_key(d)
    return [
        *lines,
        *(
            ["What a bundle alone does not prove:", *(f"  - {p}" for p in d["not_proved"])]
            if d.get("not_proved")
            else []
        ),
    ]


def _render_models(found: "Sequence[CheckpointDocument]") -> list[str]:
    return [
        f"{'serves' if each['serves'] else 'does not serve'}: {each['path']}, {each['export']} of "
        f"release {each['release']}"
        for each in found
        if each["export"]
    ]


def _problems_of(found: "Sequence[CheckpointDocument]") -> list[str]:
    return [f"{each['path']}: {problem}" for each in found for problem in each["problems"]]


def _render_own_key(d: dict[str, Any]) -> list[str]:
    return (
        [
            "That key lies in the workspace, beside the evidence: whoever changes the one can "
            "change the other. Pass --key with the public key that you were given another way."
        ]
        if d["own_key"]
        else []
    )


def _word(found: dict[str, Any]) -> str:
    return "signed" if found.get("undecided") else "valid"


def _file_of(found: dict[str, Any]) -> str:
    name = found.get("file", "")
    return "" if name in ("", f"{found['request']}.json") else f" ({name})"


def _render_audit(d: dict[str, Any]) -> list[str]:
    lines = []
    if "replay" in d:
        lines += [
            f"shard {s['shard']}, slices {'-'.join(map(str, s['slices']))}: {s['result']}"
            for s in d["replay"]["stages"]
        ]
        lines.append(
            f"{len(d['replay']['stages'])} of {d['replay']['live']} live stages trained again."
        )
    if "bundle" in d:
        lines += [
            f"{d['bundle']['certificates']} closing document(s) with their proofs in "
            f"{d['bundle']['bundle']}.",
            "Whoever checks them unpacks it, reads README.txt, and needs your public key by "
            "another way.",
        ]
    if "ledger" in d:
        lines.append(f"{d['ledger']['entries']} ledger entries in {d['ledger']['ledger']}.")
    if "report" in d:
        report = d["report"]
        lines.append(
            f"{report['requests']} request(s), {report['deadlines_missed']} deadline(s) missed, "
            f"since {report['since']}."
        )
        lines += [f"  {report[kind]}" for kind in ("html", "pdf", "json")]
    lines += render_registry(d.get("registry", []))
    return lines + [
        line
        for kind, name in (("bundle", "bundle"), ("ledger", "ledger"), ("report", "json"))
        if kind in d
        for line in _render_sending(d[kind][name])
    ]


def _render_sending(file: str) -> list[str]:
    """What to do with a piece of evidence."""
    alone = ", or, unpacked: python verify.py --key signing.pub" if file.endswith(".zip") else ""
    return [
        f"Send {file}, and .s3t/keys/signing.pub by another way.",
        f"  They check it with: s3t verify {Path(file).name} --key signing.pub{alone}",
    ]
