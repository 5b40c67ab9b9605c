"""The command line: `s3t`. Thin: it reads arguments, starts a flow or calls a use case, and shows
what came back.

Every command takes `--json` (one JSON document on stdout, everything else on stderr) and exits 0, 1
(it failed) or 2 (bad usage or input). Heavy modules are imported inside the command that needs
them.
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.adapters.child import until_signalled
from flows.cli import door as cli_door
from flows.cli import evidence as cli_evidence
from flows.cli import plan as cli_plan
from flows.cli import requests as cli_requests
from flows.cli.base import (
    CertificateOption,
    HostOption,
    JsonOption,
    KeyOption,
    ProxyOption,
    WorkspaceOption,
    app,
    console,
    door_at,
    held_out,
    meaning,
    open_if_there,
    open_workspace,
    percent,
    render_answer,
    render_exports,
    render_registry,
    run_flow,
    settings_given,
    show,
    standing_in,
    working,
)
from flows.cli.callbacks import callbacks
from flows.cli.intake import intakes
from flows.hardening import check_surroundings, harden
from s3t_core.errors import S3TError, UsageError

if TYPE_CHECKING:
    from flows.use_cases.documents import (
        Answer,
        ExportDocument,
        IngestDocument,
        ServingDocument,
        StatusDocument,
        TrainingDocument,
    )
    from flows.workspace.workspace import Workspace


def main() -> None:
    """Entry point: turns this system's errors into a message and an exit code."""
    harden()
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file may be any bytes
    try:
        check_surroundings()
        app(standalone_mode=True)
    except S3TError as error:
        _fail(error)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if (meant := meaning(error)) is None:
            raise
        _fail(meant)


def _fail(error: S3TError) -> None:
    if "--json" in sys.argv:
        with contextlib.suppress(OSError):
            print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
    print(f"s3t: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


@app.command()
def init(
    directory: Annotated[str, typer.Argument(help="Where to make it.")] = ".",
    example: Annotated[
        bool, typer.Option("--example", help="The example workspace, with its published key.")
    ] = False,
    settings: Annotated[
        str,
        typer.Option(
            "--settings",
            metavar="FILE",
            help="TOML that s3t.toml begins with: servers, columns, anything it can say.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a workspace: git, DVC, s3t.toml with every setting explained, keys."""
    from flows.examples import EXAMPLE_KEY, example_config
    from flows.progress import RichProgress, use
    from flows.workspace.creating import create_workspace
    from s3t_core.config import merge_config, new_config

    given, name = settings_given(settings), Path(settings).name
    config = merge_config(example_config(), given, name) if example else new_config(given, name)
    use(RichProgress(console()))
    with working("Making the workspace"):
        opened = create_workspace(
            Path(directory).resolve(), config, EXAMPLE_KEY if example else None
        )
    show(
        as_json,
        {"workspace": str(opened.root), "name": opened.config.system.name},
        lambda _: [
            f"Workspace ready in {opened.root}.",
            "Next: set [data] columns and labels in s3t.toml, then `s3t ingest FILE`."
            if not example
            else "Next: `s3t ingest example:chitchat`, then `s3t train`.",
            "Keep a backup of .s3t/keys: without it nothing can be placed, erased or signed.",
        ],
    )


@app.command()
def ingest(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="CSV, TSV, JSON or Parquet: a file, several, a folder of parts or a pattern; "
            "s3://, https://...#sha256=HEX or postgresql:// (docs/your-data.md); or "
            "example:chitchat, example:rotten-tomatoes.",
        ),
    ],
    append: Annotated[bool, typer.Option("--append", help="Unite with the present data.")] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            help="Also where much of what is there is missing in the source ([data] max_shrink).",
        ),
    ] = False,
    only_check: Annotated[
        bool,
        typer.Option(
            "--check", help="Say what the source is and what would be taken; change nothing."
        ),
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a snapshot of the data: validate, place, version."""
    if only_check:
        _check_source(source, append, yes, workspace, as_json)
        return
    from flows.adapters.sources.preflight import preflight
    from flows.adapters.sources.remote import is_remote
    from flows.use_cases.admission import refuse_example_key

    opened = open_workspace(workspace)
    for each in source:
        refuse_example_key(opened.keys_dir, each)
    with working("Looking at the source"):
        preflight(opened.config, source)
    sources = [
        s if s.startswith("example:") or is_remote(s) else str(Path(s).absolute()) for s in source
    ]
    show(
        as_json,
        run_flow(opened, "ingest", sources[0] if len(sources) == 1 else sources, append, yes),
        _render_ingest,
    )


@app.command()
def train(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Train the stages that are missing, register a version, serve it."""
    _show_trained(as_json, open_workspace(workspace), "train")


@app.command()
def retrain(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """The full retrain, now: on the data that is there, re-using every stage that did not
    change."""
    _show_trained(as_json, open_workspace(workspace), "retrain")


@app.command()
def repair(
    minutes: Annotated[float, typer.Option("--minutes", help="Begin no stage after so many.")] = 60,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train again what erasures deactivated, the worst shards first, within a time limit."""
    opened = open_workspace(workspace)
    done: TrainingDocument = run_flow(opened, "repair", minutes, trains=True)
    from flows.use_cases.next_steps import why_unmeasured

    done["unmeasured"] = why_unmeasured(opened.ledger.state(), opened.config)
    show(as_json, done, _render_repair)


@app.command()
def migrate(
    settings: Annotated[
        str,
        typer.Option(
            "--settings",
            metavar="FILE",
            help="TOML that names the new places: "
            "[database], [store], [dvc], [registry], [runner].",
        ),
    ] = "",
    undo: Annotated[
        bool, typer.Option("--undo", help="Destroy what an unfinished move copied.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move the workspace to servers, or back: ledger, certificates and version numbers stay."""
    from flows.use_cases import migrating

    root = open_workspace(workspace).root
    given = settings_given(settings)
    with working("Moving") as say:
        done = (
            migrating.undo(root, say)
            if undo
            else migrating.migrate(root, given, Path(settings).name, say)
        )
    show(as_json, done, _render_move)


for _command in cli_requests.COMMANDS:
    app.command()(_command)


@app.command()
def serve(
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=1,
            max=65535,
            help="Of the Prefect server (default: where it runs already, else 4200).",
        ),
    ] = None,
    host: HostOption = None,
    tls_cert: CertificateOption = "",
    tls_key: KeyOption = "",
    behind_proxy: ProxyOption = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the scheduled deployments on this machine (Prefect server, erase, audit, ...), until
    stopped."""
    opened = open_workspace(workspace)
    from flows.supervisor.serving import Serving, list_deployments

    door = door_at(host, port or 4200, tls_cert, tls_key, behind_proxy)
    insists = port is not None or host is not None or bool(tls_cert or behind_proxy)
    stop = until_signalled()

    def tell(what: str) -> None:
        print(f"s3t: {what}", file=sys.stderr, flush=True)

    serving = Serving(opened.root, door, tell, stop, insists)

    def began() -> None:
        document: ServingDocument = {
            "url": serving.url,
            "deployments": list_deployments(opened),
        }
        show(as_json, document, _render_serving)
        sys.stdout.flush()

    with standing_in(opened.root):
        serving.run(began)


@app.command()
def stop(
    forget: Annotated[
        bool, typer.Option("--forget", help="Remove its history of runs, too.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """End the Prefect server that this workspace's commands share on this machine. It also ends by
    itself."""
    from flows.adapters.shared_prefect import SharedServer
    from flows.settings import prepare_environment, workspace_root
    from flows.workspace.layout import Layout

    place = Layout(workspace_root(workspace))
    prepare_environment(place.root)  # settings that are wrong must not keep it alive
    stopped = SharedServer(place.state_dir / "prefect", 0).stop(forget)
    text = (
        "The Prefect server of this workspace has ended."
        if stopped
        else "No Prefect server of this workspace runs."
    )
    show(as_json, {"stopped": stopped}, lambda _: [text])


@app.command()
def metrics(
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 9464,
    host: HostOption = None,
    tls_cert: CertificateOption = "",
    tls_key: KeyOption = "",
    behind_proxy: ProxyOption = "",
    once: Annotated[bool, typer.Option("--once", help="Print them and end.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Metrics for Prometheus: requests, days left, depths, budget. Answers scrapes until
    stopped."""
    opened = open_workspace(workspace)
    from flows import metrics as found

    if once:
        print(found.text_of(opened), end="")
        return
    found.serve(
        opened,
        door_at(host, port, tls_cert, tls_key, behind_proxy),
        until_signalled(),
        lambda url: print(
            f"s3t: {url}/metrics, for who sends the token in .s3t/{found.TOKEN}",
            file=sys.stderr,
            flush=True,
        ),
    )


@app.command()
def status(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """What serves, live depth per shard and replica, pending requests, what is left of the
    budget."""
    from flows.use_cases.status import registry_problems, status_of

    opened = open_workspace(workspace)
    document = status_of(opened)
    document["registry"] = registry_problems(opened)
    show(as_json, document, _render_status)


_Texts = Annotated[list[str] | None, typer.Argument(metavar="[TEXT...]", help="Texts to label.")]
_In = Annotated[
    str,
    typer.Option(
        "--file",
        metavar="IN",
        help="Label each row of a CSV, JSONL or Parquet "
        "file, by the column that [data] text names.",
    ),
]
_OutFile = Annotated[
    str,
    typer.Option(
        "--out",
        metavar="OUT",
        help="Where the labels of --file go: .csv or .jsonl, a line a row, without texts and ids.",
    ),
]
_Most = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens",
        metavar="N",
        help="A language model: tokens of an answer ([serving] max_new_tokens).",
    ),
]
_Temperature = Annotated[
    float,
    typer.Option("--temperature", metavar="T", help="The same: 0 takes the likeliest, more draws."),
]
_Seed = Annotated[int, typer.Option("--seed", metavar="N", help="The same: of what is drawn.")]


@app.command()
def predict(
    texts: _Texts = None,
    file: _In = "",
    out: _OutFile = "",
    most: _Most = None,
    temperature: _Temperature = 0.0,
    seed: _Seed = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answers of the model version that serves: to texts, or to every row of a file."""
    if bool(texts) == bool(file) or bool(file) != bool(out):
        raise UsageError(
            "expected texts, or --file IN with --out OUT, got neither, both or half of it"
        )
    opened = open_workspace(workspace)
    from flows.use_cases.predicting import answers_of, predict_file

    params: dict[str, object] = {"temperature": temperature, "seed": seed}
    params |= {} if most is None else {"max_new_tokens": most}
    if file:
        show(
            as_json,
            predict_file(opened, file, Path(out), params),
            lambda d: [
                f"{d['rows'] - d['unlabelled']} rows labelled by version {d['version']} in "
                f"{d['seconds']:.0f} s: {d['out']}",
                *(
                    [f"{d['unlabelled']} rows have no text: their label is empty."]
                    if d["unlabelled"]
                    else []
                ),
            ],
        )
        return
    given = list(texts or [])
    pairs = bool(opened.config.data.text_pair)
    if pairs and len(given) % 2:
        raise UsageError(
            f"expected texts two by two ([data] text_pair), got {len(given)}; give both of each"
        )
    asked = [" | ".join(p) for p in zip(given[::2], given[1::2], strict=True)] if pairs else given
    answers = answers_of(
        opened, list(zip(given[::2], given[1::2], strict=True)) if pairs else given, params
    )
    show(
        as_json,
        answers,
        lambda found: [
            line
            for text, answer in zip(asked, found, strict=True)
            for line in _render_answer(text, answer)
        ],
    )


@app.command()
def export(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Where it goes, outside.")],
    replaces: Annotated[
        list[str] | None,
        typer.Option(
            "--replaces",
            metavar="EXPORT",
            help="An earlier export that nobody uses any more (`s3t status` lists them); again for "
            "each. One in the same DIR is replaced by itself.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the version that serves as an ordinary Hugging Face checkpoint, on the record."""
    opened = open_workspace(workspace)
    from flows.use_cases.exporting import export_champion

    show(as_json, export_champion(opened, Path(directory), replaces or ()), _render_export)


app.command()(cli_plan.plan)
app.command()(cli_door.api)
app.add_typer(cli_door.tokens, name="token")
app.add_typer(intakes, name="intake")
app.add_typer(callbacks, name="callbacks")


for _name, _evidence in cli_evidence.COMMANDS.items():
    app.command(name=_name)(_evidence)


@app.command()
def demo(
    directory: Annotated[str, typer.Option("--dir", help="Where its workspace goes.")] = ".demo",
    as_json: JsonOption = False,
) -> None:
    """The whole story on the example data, in a workspace of its own."""
    from flows.cli.demo import run_demo

    result = run_demo(Path(directory).resolve(), console())
    show(as_json, result, lambda _: [])


# --- parts


def _check_source(
    sources: list[str], append: bool, yes: bool, workspace: str | None, as_json: bool
) -> None:
    """In a workspace by its settings, elsewhere by the usual ones. Exits 2 where an ingest would
    refuse the source, or where much of it does not decode."""
    from flows.use_cases.checking_sources import check_sources

    found = check_sources(open_if_there(workspace), sources, append, yes)
    show(as_json, found, _render_check)
    if not found["fits"]:
        sys.exit(2)


def _render_check(d: dict[str, Any]) -> list[str]:
    lines = [f"Read as {d['read_as']}."] if d["read_as"] else []
    if d["columns"]:
        lines.append(f"Columns found: {', '.join(map(repr, d['columns']))}.")
    if "rows" in d:
        held_out = f", of which {d['held_out']} would be held out" if "held_out" in d else ""
        erased = f", {d['erased']} would be left out as erased" if d["erased"] else ""
        lines += [
            f"{d['rows']} rows: {d['admitted']} of {d['subjects']} subjects would be "
            f"taken{held_out}, {d['refused']} refused{erased}.",
            *(f"  refused: {n} x {reason}" for reason, n in d["reasons"].items()),
            *(
                [f"  undeclared labels: {d['refused_labels_told']}"]
                if d["refused_labels_told"]
                else []
            ),
            *_render_labels(d["labels"]),
            *(f"  warning: {n} x {kind}" for kind, n in d["warnings"].items()),
        ]
    lines += [f"  note: {note}" for note in d["notes"]]
    lines += [f"  problem: {problem}" for problem in d["problems"]]
    lines += [f"Not looked at: {what}." for what in d["not_looked_at"]]
    if d["data"]:
        lines += (
            ["", "For s3t.toml, in the place of the lines of [data] there:", "", d["data"]]
            if d["differs"]
            else (["s3t.toml fits."] if d["fits"] else [])
        )
    return [*lines, f"{_render_take(d)} Nothing was changed."]


def _render_take(d: dict[str, object]) -> str:
    if not d["takes"]:
        return "An ingest would refuse it."
    what = "it" if d["admitted"] == d["rows"] else f"{d['admitted']} of {d['rows']} rows"
    return (
        "An ingest would take "
        f"{what}{'' if d['fits'] else ', and lose what the problem above tells of'}."
    )


def _render_ingest(d: "IngestDocument") -> list[str]:
    lines = [
        f"{d['records']} training records and {d['held_out']} held-out ones of {d['subjects']} "
        f"subjects; {d['quarantined']} quarantined, {d['suppressed']} left out as erased.",
        f"Data version {d['dataset_version']}{'' if d['changed'] else ' (nothing changed)'}.",
        "Rows per slice, a shard a line: "
        + "; ".join(
            f"shard {i}: {' '.join(map(str, row))}" for i, row in enumerate(d["rows_per_slice"])
        )
        + ".",
        f"Rows of the largest subjects: {' '.join(map(str, d['largest_subjects']))}.",
    ]
    lines += [f"Read as {d['read_as']}.", *(f"  note: {note}" for note in d["notes"])]
    lines += [f"  quarantined: {n} x {reason}" for reason, n in d["reasons"].items()]
    if d["refused_labels"]:
        lines.append(
            "  undeclared labels: "
            + ", ".join(f"{v!r} ({n})" for v, n in d["refused_labels"].items())
        )
    lines += [f"  warning: {n} x {kind}" for kind, n in d["warnings"].items()]
    if d["nearly"]:
        lines.append(
            f"  warning: {d['nearly']} of the rows left out are of ids that are spelt nearly like "
            "an erased one (letter case, blanks, Unicode form, .0). Where those are other people, "
            "see docs/your-data.md, A person who was erased."
        )
    if d["warnings"]:
        lines.append(
            "  Those rows were taken. Look at them in the source, and ingest again where they are "
            "mistakes; docs/your-data.md says what each warning means."
        )
    if d["quarantined"]:
        lines.append(
            "Refused rows are in .s3t/quarantine/rows.jsonl, by their place in the source."
        )
    return [*lines, "Next: `s3t train`."]


def _render_move(d: dict[str, Any]) -> list[str]:
    if "undone" in d:
        return ["The workspace is where it was; what was copied is destroyed."]
    return [
        f"Moved: {', '.join(d['moved'])}. {d['entries']} ledger entries, {d['requests']} "
        f"request(s), {d['stages']} stages, {d['objects']} data objects, version(s) "
        f"{', '.join(d['versions']) or 'none'}.",
        "s3t.toml names the new places; what was at the old ones is destroyed.",
        "Whoever loaded the model loads it again from the new registry; next: docs/operations.md, "
        "Moving.",
    ]


def _show_trained(as_json: bool, opened: "Workspace", flow: str) -> None:
    from flows.workspace.workspace import require_data

    require_data(opened.ledger.state())  # told before Prefect starts
    done: TrainingDocument = run_flow(opened, flow, trains=True)
    from flows.use_cases.next_steps import thin_data, why_unmeasured

    state = opened.ledger.state()
    done["unmeasured"] = why_unmeasured(state, opened.config)
    done["thin"] = thin_data(state.dataset, opened.config)
    show(as_json, done, _render_training)


def _render_labels(counts: dict[str, int]) -> list[str]:
    text = ", ".join(f"{label!r} {n}" for label, n in counts.items())
    return [f"Rows per label: {text}."] if text else []


def _render_training(d: "TrainingDocument") -> list[str]:
    share = d["reused"] / max(d["trained"] + d["reused"], 1)
    return [
        f"{d['trained']} stages trained, {d['reused']} re-used ({percent(share)}), in "
        f"{d['seconds']:.0f} s.",
        f"Version {d['version']} serves; {held_out(d['score'], d['unmeasured'])}.",
        *(f"  warning: {each}." for each in d["thin"]),
        "Next: `s3t predict TEXT`, or `s3t request --stdin` and `s3t erase`.",
    ]


def _render_repair(d: "TrainingDocument") -> list[str]:
    left = (
        f"{d['missing']} stages are still missing; run it again."
        if d["missing"]
        else "Every stage is there."
    )
    return [
        f"{d['trained']} stages trained in {d['seconds']:.0f} s; version {d['version']} serves; "
        f"{held_out(d['score'], d['unmeasured'])}. {left}"
    ]


def _render_serving(d: "ServingDocument") -> list[str]:
    return [
        "Starting. Stop it with Ctrl-C; a kill loses nothing: start it again.",
        *(
            f"  {each['name']:<13} {each['cron'] + ' UTC' if each['active'] else 'when asked':<16} "
            f"{each['does']}"
            for each in d["deployments"]
        ),
        f"The Prefect server is at {d['url']}, for who has the credential in .s3t/prefect.",
        "Where to look: .s3t/certificates, .s3t/reports, .s3t/prefect/serve.log; `s3t requests`, "
        "`s3t status` in another terminal.",
    ]


def _render_export(d: "ExportDocument") -> list[str]:
    return [
        f"{d['export']}: version {d['version']}, release {d['release']}, in {d['directory']} "
        f"({d['bytes'] / 1e6:.1f} MB).",
        *(f"  in the place of {name}" for name in d["replaced"]),
        "README.md there says how to load it. An erasure that reaches it destroys it there; copies "
        "are yours to destroy. Whether one serves: `s3t verify DIR`.",
    ]


def _render_answer(text: str, answer: "Answer") -> list[str]:
    return [f"{render_answer(answer)}  <- {text[:60]}"]


def _render_status(d: "StatusDocument") -> list[str]:
    lines = [
        f"{d['name']}: version {d['version'] or 'none yet'}, "
        f"{held_out(d['score'], d['unmeasured'])}, {d['records']} records."
    ]
    for shard in d["shards"]:
        replicas = "  ".join(
            f"{'-'.join(map(str, r['sequence']))}: {r['depth']}" for r in shard["replicas"]
        )
        lines.append(
            f"  shard {shard['shard']}: live depth {shard['live_depth']}   (replicas {replicas})"
        )
    from flows.budget import render_budget
    from s3t_core.erasure.closing import DocumentProblems

    budget = d["deletion_budget"]
    lines.append(f"Deletion budget ({budget['policy']}): {render_budget(budget)}.")
    lines.append(
        f"Pending: {len(d['pending'])}; certified: {d['certified']}; withdrawn or rejected: "
        f"{d['withdrawn_or_rejected']}; ledger entries: {d['ledger']['size']}."
    )
    lines += [f"  {p['id']}  {p['state']}, due {p['due']}" for p in d["pending"]]
    if d["full_retrain"]:
        lines.append(
            f"A full retrain is {d['full_retrain']['state']} since {d['full_retrain']['time']}; "
            "`s3t erase` or `s3t retrain` sees to it."
        )
    lines += [f"Attention: {each}." for each in DocumentProblems.of(d["documents"]).sentences()]
    lines += render_exports(d["exports"])
    if d["interrupted_erasure"]:
        lines.append("An erasure was interrupted: run `s3t erase` to finish it.")
    return [*lines, *render_registry(d["registry"])]
