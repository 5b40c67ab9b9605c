"""Replay: train live stages again from their recorded inputs and compare bytes.

It is evidence that the model that serves is what the ledger says it is, and of the numeric profile
that exactness is claimed within: on another machine, with other libraries or by another
version of the method bytes differ, which is told as that and never as a pass.
"""

import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from flows.progress import current
from flows.workspace import access
from flows.workspace.jobs import Measurable, stage_job
from flows.workspace.parts import HasRegistry, HasSigning, Lockable
from flows.workspace.workspace import require_data
from s3t_core import METHOD_VERSION
from s3t_core.canonical import sha256_hex
from s3t_core.domain import StageRecord
from s3t_core.erasure import events
from s3t_core.erasure.state import State
from s3t_core.errors import S3TError, UsageError
from s3t_core.learning.jobs import DescribeJob
from s3t_core.learning.recipe import Recipe, wanted
from s3t_core.learning.release import recipe_from_json

_SAME, _OTHER = "same bytes", "OTHER BYTES"
_NOT_COMPARABLE = "not comparable: another numeric profile"
_OTHER_METHOD = "not comparable: made by another version of the method"
_NOTHING_SERVES = "expected a version that serves, got none; run `s3t train`"


class Replayed(Measurable, Lockable, HasSigning, HasRegistry, Protocol):
    """What live stages are trained again in."""


def replay(workspace: Replayed, count: int | None, seed: int | None = None) -> dict[str, Any]:
    """Train `count` random live stages again (None: all of them) and hold their bytes against the
    recorded digests.

    {"valid", "profile", "live", "stages": [{"key", "shard", "slices", "result"}]}. `result`: "same
    bytes", "OTHER BYTES", or why nothing can be said ("its data changed since": ingested anew, and
    not trained yet). `valid` is false unless something was replayed and every replayed stage had
    the same bytes. Erasures go on meanwhile.

    Raises UsageError when nothing serves, BackboneChanged when the backbone is another.
    """
    with access.training(workspace):
        state = workspace.ledger.state()
        if state.champion is None or state.dataset is None:
            raise UsageError(_NOTHING_SERVES)
        workspace.registry.check_files(state.champion)
        recipe = recipe_from_json(state.champion.recipe)
        with current().spinner("Loading torch and the backbone"):
            found = workspace.runner.describe(
                DescribeJob(recipe.model, recipe.profile.threads, recipe.training["device"])
            )
        live = sorted(
            {s.key: s for r in state.champion.release.replicas for s in r.stages}.values(),
            key=lambda s: s.key,
        )
        same_method = recipe.method == METHOD_VERSION
        same_profile = same_method and found.profile == recipe.profile
        chosen = live if count is None else random.Random(seed).sample(live, min(count, len(live)))
        results = (
            _results(workspace, state, recipe, chosen)
            if same_profile
            else [_NOT_COMPARABLE if same_method else _OTHER_METHOD] * len(chosen)
        )
        document = {
            "valid": _SAME in results and _OTHER not in results,
            "live": len(live),
            "profile": recipe.profile.__dict__
            | ({} if same_profile else {"here": found.profile.__dict__})
            | ({} if same_method else {"method": recipe.method, "method_here": METHOD_VERSION}),
            "stages": [
                {"key": s.key, "shard": s.shard, "slices": list(s.prefix), "result": r}
                for s, r in zip(chosen, results, strict=True)
            ],
        }
        workspace.ledger.append(
            events.Replayed(
                time=workspace.now(),
                version=state.champion.version,
                live=len(live),
                same_profile=same_profile,
                same=tuple(s.key for s, r in zip(chosen, results, strict=True) if r == _SAME),
                other=tuple(s.key for s, r in zip(chosen, results, strict=True) if r == _OTHER),
            )
        )
        workspace.signing.write_checkpoint()
    return document


def _results(
    workspace: Replayed, state: State, recipe: Recipe, chosen: Iterable[StageRecord]
) -> list[str]:
    """What became of each. Raises UsageError when nothing serves."""
    if state.champion is None:
        raise UsageError(_NOTHING_SERVES)
    stages, dataset = list(chosen), require_data(state)
    sequences = list(dict.fromkeys(r.sequence for r in state.champion.release.replicas))
    specs = {s.key: s for s in wanted(recipe, sequences, dataset).stages}
    held_out, file_of = workspace.held_out_ref(state), (workspace.root / "data").joinpath

    def one(record: StageRecord) -> str:
        spec = specs.get(record.key)
        if spec is None:
            return "its data changed since"
        try:
            outcome = workspace.runner.train(
                stage_job(workspace, recipe, spec, state.stages, held_out, file_of)
            )
        except S3TError:
            now = workspace.ledger.state()
            if now.release is None or record.key not in now.release.stage_keys():
                return "deactivated meanwhile"
            raise
        finally:
            advance()
        return _SAME if sha256_hex(outcome.artifact) == record.digest else _OTHER

    with (
        current().bar(f"Training {len(stages)} stages again", len(stages)) as advance,
        ThreadPoolExecutor(workspace.config.runner.workers) as pool,
    ):
        return list(pool.map(one, stages))
