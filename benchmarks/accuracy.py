"""The champion on the example data against logistic regression on frozen MiniLM embeddings of the
same split.

The regression's strength is chosen on a tuning part (a fifth of the training subjects), never on
the held-out part. Intervals are 95% bootstrap percentiles over conversations, because the rows of
one conversation share a label.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from flows.examples import EXAMPLE_KEY, example_config, rows
from flows.use_cases.predicting import champion_of
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace, enter
from s3t_core.domain import HELD_OUT
from s3t_core.learning.backbone import find_backbone, load_model, load_tokenizer
from s3t_core.learning.encoding import TextReader
from s3t_core.records import Row, subject_digest

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)


def main() -> None:
    """Print one table, and JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--workspace",
        default=".bench-example",
        help="a workspace with the example trained; made when missing",
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = compare(_trained(Path(arguments.workspace).resolve()))
    if arguments.json:
        print(json.dumps(result))
        return
    for name in ("champion", "regression", "difference"):
        low, high = result[name]["interval"]
        print(
            f"{name:12} {100 * result[name]['value']:5.1f}%  (95%: {100 * low:.1f} to "
            f"{100 * high:.1f})"
        )
    print(
        f"held-out rows {result['rows']}, conversations {result['conversations']}; C = "
        f"{result['strength']} chosen on the tuning part; {result['hardware']}"
    )


def compare(place: Workspace) -> dict[str, Any]:
    """Both models on the held-out rows of the present data version."""
    config = place.config
    state = place.ledger.state()
    if state.dataset is None:
        raise SystemExit("no data in the workspace")
    training = [
        r
        for s in state.dataset.slice_versions
        for r in place.datasets.versions.recorded_rows(state.dataset, s)
    ]
    held_out = place.datasets.versions.recorded_rows(state.dataset, HELD_OUT)
    labels = config.require_labels()
    model, strength = _regression(training, config.backbone.max_length)
    truth = np.array([r.label for r in held_out])
    regression = (
        model.predict(_embed([r.text for r in held_out], config.backbone.max_length)) == truth
    )
    answers = champion_of(place).predict([r.text for r in held_out])
    champion = np.array([a["label"] for a in answers]) == truth
    clusters = _conversations(place, held_out)
    assert set(truth) <= set(labels)
    return {
        "champion": _interval(champion.astype(float), clusters),
        "regression": _interval(regression.astype(float), clusters),
        "difference": _interval(champion.astype(float) - regression, clusters),
        "rows": len(held_out),
        "conversations": len(set(clusters)),
        "strength": strength,
        "hardware": f"{torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, {platform.machine()}, torch "
        f"{torch.__version__}",
    }


def _trained(root: Path) -> Workspace:
    if not (root / "s3t.toml").exists():
        create_workspace(root, example_config(), EXAMPLE_KEY)
    place = enter(root)
    if place.ledger.state().champion is None:
        from flows.prefect_flows.ingest import ingest
        from flows.prefect_flows.train import train

        ingest(str(root), "example:chitchat")
        train(str(root))
    return place


def _regression(training: list[Row], max_length: int) -> tuple[LogisticRegression, float]:
    features = _embed([r.text for r in training], max_length)
    truth = np.array([r.label for r in training])
    tuning = np.array([int(r.subject[:8], 16) % 5 == 0 for r in training])  # by subject

    def score(strength: float) -> float:
        model = LogisticRegression(C=strength, max_iter=5000).fit(features[~tuning], truth[~tuning])
        return float(model.score(features[tuning], truth[tuning]))

    best = max(STRENGTHS, key=score)
    return LogisticRegression(C=best, max_iter=5000).fit(features, truth), best


@torch.inference_mode()
def _embed(texts: list[str], max_length: int) -> np.ndarray[Any, Any]:
    """Mean-pooled MiniLM states, normalised, (texts, 384)."""
    backbone = find_backbone("minilm")
    model, tokenizer = load_model(backbone), load_tokenizer(backbone)
    reader = TextReader(tokenizer, max_length)
    tokens = reader.items(texts)
    parts = []
    for start in range(0, len(tokens), 64):
        batch = reader.batch(tokens[start : start + 64])
        states = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        parts.append(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)))
    return torch.cat(parts).numpy()


def _conversations(place: Workspace, held_out: list[Row]) -> list[str]:
    """The conversation of each held-out row; data files do not hold it, so it is looked up in the
    source."""
    found = {
        (subject_digest(place.keys, r["subject"]), r["text"]): r["conversation"]
        for r in rows("chitchat")
    }
    return [found[r.subject, r.text] for r in held_out]


def _interval(values: np.ndarray[Any, Any], clusters: list[str]) -> dict[str, Any]:
    names, member = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(member, values), np.bincount(member)
    draws = np.random.default_rng(0).integers(0, len(names), (5000, len(names)))
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    return {
        "value": float(values.mean()),
        "interval": [float(np.percentile(means, p)) for p in (2.5, 97.5)],
    }


if __name__ == "__main__":
    main()
