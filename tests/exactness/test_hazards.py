"""The hazards of method.md, a named test each. `make test-mutants` shows each failing with its
protection removed."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from s3t_core.domain import Release, SliceId
from s3t_core.learning.backbone import find_backbone, load_model, modules_in_layers
from s3t_core.learning.ensemble import Ensemble
from s3t_core.learning.recipe import blocks, make_recipe
from s3t_core.learning.replica import StagedModel
from s3t_core.learning.stage import batch_layout, train_stage
from s3t_core.records import Row
from tests.exactness.system import Slices, TinySystem, config_for, make_rows, make_slices


@pytest.fixture(scope="module")
def system(tiny_backbone: Path) -> TinySystem:
    trained = TinySystem(tiny_backbone, 1, 3, 3)
    trained.train(make_slices(1, 3))
    return trained


def _artifacts(system: TinySystem, data: Slices, number: int = 0) -> list[bytes]:
    return [system.artifacts[k] for k in system.plan(data).replicas[number].keys if k]


def test_hazard_1_layers_are_matched_by_parsed_index_and_the_trainable_set_is_exact(
    twelve_layers: Path,
) -> None:
    system = TinySystem(twelve_layers, 1, 12, 1)
    staged = StagedModel(load_model(system.backbone), system.recipe)
    names = modules_in_layers(staged.model, (1,), ("query", "value"))
    assert names == ["encoder.layer.1.attention.self.query", "encoder.layer.1.attention.self.value"]
    staged.attach("stage11", 11)  # block 11 of 12, from the top, is layer 1
    trainable = staged.trainable("stage11")
    assert set(trainable) == {
        f"encoder.layer.1.attention.self.{m}.lora_{side}.stage11.weight"
        for m in ("query", "value")
        for side in "AB"
    } | {"head.weight", "head.bias"}
    others = [
        n for n, p in staged.model.named_parameters() if p.requires_grad and n not in trainable
    ]
    assert others == []


def test_hazard_2_each_stage_has_a_head_of_its_own_that_answers_at_its_depth(
    system: TinySystem,
) -> None:
    artifacts = _artifacts(system, make_slices(1, 3))
    staged = _loaded(system, artifacts)
    heads = [staged.tensors(f"stage{i}")["head.weight"] for i in (1, 2, 3)]
    assert not torch.equal(heads[0], heads[1]) and not torch.equal(heads[1], heads[2])
    staged.activate(["stage1"])
    alone = _loaded(system, artifacts[:1])
    alone.activate(["stage1"])
    batch = {
        "input_ids": torch.tensor([[2, 5, 6, 3]]),
        "attention_mask": torch.ones(1, 4, dtype=torch.long),
    }
    assert torch.equal(staged.logits("stage1", batch), alone.logits("stage1", batch))


def test_hazard_3_loading_a_stage_leaves_the_earlier_ones_as_they_were(system: TinySystem) -> None:
    artifacts = _artifacts(system, make_slices(1, 3))
    staged = _loaded(system, artifacts)
    batch = {
        "input_ids": torch.tensor([[2, 7, 9, 4, 3]]),
        "attention_mask": torch.ones(1, 5, dtype=torch.long),
    }
    for depth in (1, 2, 3):
        assert staged.dump(f"stage{depth}") == artifacts[depth - 1]
        names = [f"stage{i}" for i in range(1, depth + 1)]
        staged.activate(names)
        only = _loaded(system, artifacts[:depth])
        only.activate(names)
        assert torch.equal(staged.logits(names[-1], batch), only.logits(names[-1], batch))


@pytest.mark.parametrize("index", range(3))
def test_hazard_4_deleting_any_row_changes_every_key_it_must_and_no_other(
    system: TinySystem, index: int
) -> None:
    data = make_slices(1, 3)
    before = system.plan(data)
    rows = data[SliceId(0, index)]
    for position in range(len(rows)):
        after = system.plan(data | {SliceId(0, index): rows[:position] + rows[position + 1 :]})
        for old, new in zip(before.replicas, after.replicas, strict=True):
            first = old.sequence.index(index)
            assert old.keys[:first] == new.keys[:first]
            assert all(a != b for a, b in zip(old.keys[first:], new.keys[first:], strict=True))


def test_hazard_4_every_field_of_a_row_is_in_the_key(system: TinySystem) -> None:
    data = make_slices(1, 3)
    row = data[SliceId(0, 0)][0]
    key = system.plan(data).replicas[0].keys[0]
    for changed in (
        Row(row.record, row.subject, row.text + " w1", row.label),
        Row(row.record, row.subject, row.text, "ba"[row.label == "b"]),
        Row("f" * 64, row.subject, row.text, row.label),
    ):
        assert (
            system.plan(data | {SliceId(0, 0): [changed, *data[SliceId(0, 0)][1:]]})
            .replicas[0]
            .keys[0]
            != key
        )


def test_hazard_7_votes_are_weighed_alike_whatever_the_shards_hold(tiny_backbone: Path) -> None:
    both = TinySystem(tiny_backbone, 2, 1, 1)
    plan = both.train({SliceId(0, 0): make_rows(0, 0, 3), SliceId(1, 0): make_rows(1, 0, 40)})
    release = both.release(plan)
    texts = ["w1 w2", "w3"]
    one, two = (_probabilities(both, Release("r", "v", (r,)), texts) for r in release.replicas)
    assert torch.equal(_probabilities(both, release, texts), (one + two) / 2)


def test_hazard_7_the_label_set_comes_from_the_config_not_from_the_rows(system: TinySystem) -> None:
    data = make_slices(1, 3)
    only_a: Slices = {k: [r for r in rows if r.label == "a"] for k, rows in data.items()}
    spec = system.plan(only_a).stages[0]
    result = train_stage(
        system.backbone, system.recipe, spec, [only_a[SliceId(0, s)] for s in spec.prefix], [], []
    )
    staged = _loaded(system, [result.artifact])
    assert staged.tensors("stage1")["head.weight"].shape[0] == 2


def test_hazard_8_steps_are_fixed_and_held_out_rows_decide_nothing(system: TinySystem) -> None:
    data = make_slices(1, 3)
    spec = system.plan(data).stages[0]
    rows = data[SliceId(0, spec.prefix[0])]
    runs = [
        train_stage(system.backbone, system.recipe, spec, [rows], [], held)
        for held in ([], make_rows(0, 9, 5), make_rows(0, 8, 50))
    ]
    assert len({r.artifact for r in runs}) == 1
    assert runs[0].steps == 2 * -(-len(rows) // 4)  # two epochs of batches of four


def test_hazard_9_a_stage_depends_on_its_own_slices_alone_and_not_on_the_replicas_number(
    tiny_backbone: Path,
) -> None:
    data = make_slices(2, 3)
    more = data | {SliceId(0, 2): make_rows(0, 2, 30), SliceId(1, 0): make_rows(1, 0, 30)}
    results = []
    for rows, budget in ((data, 1), (more, 6)):
        system = TinySystem(tiny_backbone, 2, 3, budget)
        plan = system.plan(rows)
        spec = next(s for s in plan.stages if (s.shard, s.prefix) == (0, (0,)))
        results.append(
            (
                spec.key,
                train_stage(
                    system.backbone, system.recipe, spec, [rows[SliceId(0, 0)]], [], []
                ).artifact,
            )
        )
    assert results[0] == results[1]


def test_hazard_9_replicas_that_share_a_prefix_share_its_stages(tiny_backbone: Path) -> None:
    system = TinySystem(tiny_backbone, 1, 3, 6)
    plan = system.plan(make_slices(1, 3))
    by_prefix = Counter(r.sequence[:1] for r in plan.replicas)
    assert set(by_prefix.values()) == {2}
    assert len(plan.stages) == 3 + 6 + 6
    first = {r.sequence[0]: set() for r in plan.replicas}
    for replica in plan.replicas:
        first[replica.sequence[0]].add(replica.keys[0])
    assert all(len(keys) == 1 for keys in first.values())


def test_hazard_10_a_stage_trained_after_another_equals_one_trained_alone(
    system: TinySystem,
) -> None:
    data = make_slices(1, 3)
    plan = system.plan(data)
    spec = next(s for s in plan.stages if len(s.prefix) == 2)
    rows = [data[SliceId(0, s)] for s in spec.prefix]
    earlier = [system.artifacts[k] if k else None for k in spec.earlier]
    torch.rand(17)  # whatever this process did before is no matter
    train_stage(system.backbone, system.recipe, plan.stages[0], rows[:1], [], [])
    again = train_stage(system.backbone, system.recipe, spec, rows, earlier, [])
    assert again.artifact == system.artifacts[spec.key]


def test_hazard_11_the_backbones_weights_are_never_changed(system: TinySystem) -> None:
    pristine = load_model(system.backbone).state_dict()
    data = make_slices(1, 3)
    ensemble = Ensemble(
        system.backbone,
        system.recipe,
        system.release(system.plan(data)),
        system.artifacts.__getitem__,
    )
    ensemble.predict(["w1", "w2 w3"])
    served = ensemble._staged.model.state_dict()
    base = {n.replace(".layer.base_layer", ""): t for n, t in served.items() if ".lora_" not in n}
    assert base.keys() == pristine.keys()
    assert all(torch.equal(base[n].cpu(), pristine[n]) for n in pristine)


def test_hazard_13_batches_are_laid_out_from_the_stages_own_rows_and_nothing_of_them_is_kept(
    system: TinySystem,
) -> None:
    import random

    lengths = [i * 7 % 13 for i in range(200)]
    layouts = [batch_layout(lengths, 4, random.Random(5)) for _ in range(2)]
    assert layouts[0] == layouts[1]
    assert sorted(i for batch in layouts[0] for i in batch) == list(range(200))
    staged = _loaded(system, _artifacts(system, make_slices(1, 3))[:1])
    assert {n.split(".")[0] for n in staged.tensors("stage1")} == {
        "adapter",
        "head",
    }  # weights only, no activations


def test_the_precision_that_is_left_to_the_machine_stands_in_the_stage_key(
    tiny_backbone: Path,
) -> None:
    system = TinySystem(tiny_backbone, 1, 2, 1, "auto")
    machines = {
        b: make_recipe(
            config_for(tiny_backbone, 1, 2, 1, "auto"),
            "m",
            "b",
            "t",
            3,
            replace(system.recipe.profile, bfloat16=b),
        )
        for b in (False, True)
    }
    assert {b: r.training["dtype"] for b, r in machines.items()} == {
        False: "float32",
        True: "bfloat16",
    }
    named = replace(machines[True], training={**machines[True].training, "dtype": "float32"})
    keys = {r.stage_key(0, (0,), ("d",), ()) for r in (*machines.values(), named)}
    assert len(keys) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_is_byte_repeatable_in_every_precision(tiny_backbone: Path, dtype: str) -> None:
    data = make_slices(1, 2)
    runs = [TinySystem(tiny_backbone, 1, 2, 2, dtype) for _ in range(2)]
    for run in runs:
        run.train(data)
    assert runs[0].artifacts == runs[1].artifacts


def test_an_empty_slice_is_legal_and_its_stage_is_void(tiny_backbone: Path) -> None:
    system = TinySystem(tiny_backbone, 1, 3, 3)
    data = make_slices(1, 3) | {SliceId(0, 1): []}
    plan = system.train(data)
    voids = [r for r in plan.replicas if r.sequence[0] == 1]
    assert [r.keys[0] for r in voids] == [None]
    depths = {r.sequence: r.depth for r in system.release(plan).replicas}
    assert depths == {(0, 1, 2): 3, (1, 2, 0): 2, (2, 0, 1): 3}


def test_blocks_are_contiguous_cover_every_layer_once_and_start_at_the_top() -> None:
    for layers in range(1, 15):
        for slices in range(1, layers + 1):
            found = blocks(layers, slices)
            assert [i for block in reversed(found) for i in block] == list(range(layers))
            assert max(map(len, found)) - min(map(len, found)) <= 1
            assert found[0][-1] == layers - 1


def test_a_backbone_is_found_in_any_directory(tiny_backbone: Path) -> None:
    assert find_backbone(str(tiny_backbone)).layers == 3


def _loaded(system: TinySystem, artifacts: list[bytes]) -> StagedModel:
    staged = StagedModel(load_model(system.backbone), system.recipe)
    for block, artifact in enumerate(artifacts, start=1):
        staged.load(f"stage{block}", block, artifact)
    return staged


def _probabilities(system: TinySystem, release: Release, texts: list[str]) -> torch.Tensor:
    return Ensemble(
        system.backbone, system.recipe, release, system.artifacts.__getitem__
    ).probabilities(texts)
