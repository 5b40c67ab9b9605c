"""Any Hugging Face encoder; and the real backbone on real text, in processes of their own."""

import base64
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import (
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    ViTMAEConfig,
    ViTMAEModel,
)

from flows.adapters.runner import ProcessRunner
from flows.examples import example_config, rows
from s3t_core.config import Config
from s3t_core.domain import SliceId
from s3t_core.errors import BackboneChanged, DataError, GuaranteeError, TrainingError, UsageError
from s3t_core.learning import backbone
from s3t_core.learning.backbone import (
    Backbone,
    check_repeats,
    find_backbone,
    layer_stack,
    load_image_processor,
    load_language_model,
    load_model,
    load_settings,
    load_tokenizer,
    modules_in_layers,
)
from s3t_core.learning.backbone_files import nothing_else_read
from s3t_core.learning.encoding import _image
from s3t_core.learning.jobs import DescribeJob, FileRef, StageJob
from s3t_core.learning.recipe import NumericProfile, make_recipe, wanted
from s3t_core.learning.repeating import check_repeats_itself
from s3t_core.learning.replica import load_staged
from s3t_core.learning.store import LocalStageStore
from s3t_core.records import Row, slice_digest
from s3t_core.slicefile import write_rows
from tests.exactness.system import KEYS, TinySystem, dataset_of, make_slices
from tests.tiny import build_backbone, build_language_model, build_vision

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize(
    ("model", "stack", "targets"),
    [
        (
            DistilBertModel(
                DistilBertConfig(vocab_size=40, dim=16, n_heads=2, hidden_dim=16, n_layers=11)
            ),
            "transformer.layer",
            ("q_lin", "v_lin"),
        ),
        (
            ElectraModel(ElectraConfig(**SMALL, embedding_size=16, num_hidden_layers=11)),
            "encoder.layer",
            ("query", "value"),
        ),
        (
            ModernBertModel(
                ModernBertConfig(
                    **SMALL,
                    num_hidden_layers=11,
                    pad_token_id=0,
                    bos_token_id=1,
                    eos_token_id=2,
                    cls_token_id=1,
                    sep_token_id=2,
                )
            ),
            "layers",
            ("Wqkv",),
        ),
    ],
)
def test_layers_are_found_in_any_encoder(
    model: torch.nn.Module, stack: str, targets: tuple[str, ...]
) -> None:
    assert layer_stack(model) == stack
    for layer in range(11):
        names = modules_in_layers(model, (layer,), targets)
        assert len(names) == len(targets)
        assert all(n.startswith(f"{stack}.{layer}.") for n in names)
    with pytest.raises(UsageError, match="target_modules"):
        modules_in_layers(model, (1,), ("no_such_module",))


def _job(folder: Path, config: Config, backbone: str, threads: int = 1) -> list[StageJob]:
    """Jobs of one replica of two slices on real rows."""
    source = [r for _, r in zip(range(48), rows("chitchat"), strict=False)]
    slices = {
        SliceId(0, i): [
            Row(f"{i}{n:063d}", "s", r["text"], r["label"]) for n, r in enumerate(source[i::2])
        ]
        for i in range(2)
    }
    described = ProcessRunner().describe(DescribeJob(backbone, threads))
    recipe = make_recipe(
        config,
        backbone,
        described.digest,
        described.tokenizer_digest,
        described.layers,
        described.profile,
    )
    plan = wanted(recipe, [(0, 1)], dataset_of(slices, 1, 2))
    files = {}
    for slice_id, content in slices.items():
        path = folder / f"{slice_id.index}.parquet"
        write_rows(path, content)
        files[slice_id.index] = FileRef(path, slice_digest(KEYS, content))
    write_rows(folder / "held.parquet", slices[SliceId(0, 1)][:8])
    held_out = FileRef(folder / "held.parquet", slice_digest(KEYS, slices[SliceId(0, 1)][:8]))
    return [
        StageJob(
            recipe,
            spec,
            tuple(files[s] for s in spec.prefix),
            (None,) * len(spec.earlier),
            held_out,
            LocalStageStore(folder / "stages"),
            KEYS,
            measured=8,
        )
        for spec in plan.stages
    ]


@pytest.mark.parametrize("stacks", [0, 2])
def test_a_model_whose_layers_are_not_one_stack_is_refused(stacks: int) -> None:
    class Strange(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = LlamaConfig(num_hidden_layers=3)
            for n in range(stacks):
                layers = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))
                self.add_module(f"stack{n}", layers)

    with pytest.raises(UsageError, match=f"one stack of 3 layers in the backbone, got {stacks}"):
        layer_stack(Strange())


@pytest.mark.long_but_first
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_the_real_backbone_trains_real_text_to_the_same_bytes_in_two_processes(
    tmp_path: Path, dtype: str
) -> None:
    """In bfloat16 where the machine has it: elsewhere that takes eight times as long, and nobody
    trains so."""
    from dataclasses import replace

    config = example_config()
    config = config.model_copy(
        update={
            "system": config.system.model_copy(update={"slices": 2}),
            "training": config.training.model_copy(update={"dtype": dtype, "epochs": 1}),
        }
    )
    runner = ProcessRunner()
    artifacts = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        first, second = _job(tmp_path / run, config, "minilm")
        if dtype == "auto" and first.recipe.training["dtype"] == "float32":
            pytest.skip("this machine has no bfloat16: it is the other case")
        one = runner.train(first)
        stored = LocalStageStore(tmp_path / run / "stages", b"key").put(
            first.spec.key, one.artifact
        )
        two = runner.train(replace(second, earlier=(stored,)))
        assert one.score is not None and two.steps == 3
        artifacts.append((one.artifact, two.artifact))
    assert artifacts[0] == artifacts[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "named", [["sub/w.safetensors"], ["../w.safetensors"], ["gone.safetensors"], None]
)
def test_weights_that_are_not_hashed_are_not_loaded(
    tiny_backbone: Path, tmp_path: Path, named: list[str] | None
) -> None:
    """An index may name files in other directories: the digest of the backbone would stay, and
    with it the keys of stages, whatever the weights are."""
    path = Path(shutil.copytree(tiny_backbone, tmp_path / "model"))
    before = find_backbone(str(path)).digest
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    assert find_backbone(str(path)).digest == before
    told = {"weight_map": dict(enumerate(named))} if named else ["no index"]
    index.write_text(json.dumps(told))
    with pytest.raises(UsageError, match="name files beside it"):
        find_backbone(str(path))


ELSEWHERE = {
    "weights": ("config.json", {"transformers_weights": "sub/w.safetensors"}),
    "weights deep within": ("config.json", {"x": [{"transformers_weights": "model.safetensors"}]}),
    "a tokenizer": ("tokenizer_config.json", {"fast_tokenizer_files": ["sub/tokenizer.4.json"]}),
    "a tokenizer called prose": ("tokenizer_config.json", {"fast_tokenizer_files": ["t.json.md"]}),
    "a tokenizer called weights": ("tokenizer_config.json", {"fast_tokenizer_files": "t.json.bin"}),
    "another model": ("adapter_config.json", {"base_model_name_or_path": "/another"}),
    "words not_there_yet": ("tokenizer_config.json", {"vocab": "v.txt"}),
    "merges not_there_yet": ("tokenizer_config.json", {"merges": "v.txt"}),
    "words outside": ("tokenizer_config.json", {"other_vocabulary": "{outside}"}),
    "a list outside": ("tokenizer_config.json", {"x": {"files": ["{outside}"]}}),
    "options outside": ("tokenizer_config.json", {"mecab_kwargs": {"option": "-r {outside} -x"}}),
    "a directory outside": ("config.json", {"backbone": "{folder}/"}),
    "outside of where it runs": ("preprocessor_config.json", {"x": "{relative}"}),
    "beside it without a digest, outside": ("config.json", {"x": "t.json.md"}),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_settings_that_have_other_files_loaded_are_refused(
    tiny_backbone: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no digest: whoever changes them changes what stages stand on, and no key of one."""
    path = Path(shutil.copytree(tiny_backbone, tmp_path / "model"))
    (path / "sub").mkdir()
    for other in ("sub/w.safetensors", "sub/tokenizer.4.json", "t.json.md", "t.json.bin"):
        shutil.copy(path / "model.safetensors", path / other)
    outside = tmp_path / "outside" / "vocab.txt"
    outside.parent.mkdir()
    outside.write_text("w1")
    monkeypatch.chdir(outside.parent)
    file, told = ELSEWHERE[name]
    for of, is_at in (
        ("{outside}", str(outside)),
        ("{folder}", str(outside.parent)),
        ("{relative}", "vocab.txt"),
    ):
        told = json.loads(json.dumps(told).replace(of, is_at))
    _set(path, file, told)
    with pytest.raises(UsageError, match="save"):
        find_backbone(str(path))


_OPEN: dict[str, Callable[[Path], object]] = {
    "as it is": lambda path: path.read_bytes(),
    "by its bytes": lambda path: open(os.fsencode(path), "rb").close(),  # noqa: PTH123
    "by the system": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "from where it runs": lambda path: Path(os.path.relpath(path)).read_bytes(),
    "by a way round": lambda path: (path.parent / "x" / ".." / path.name).read_bytes(),
}


@pytest.mark.parametrize("how", _OPEN)
@pytest.mark.parametrize("in_thread", [False, True])
def test_nothing_of_a_model_is_read_that_has_no_digest(
    tiny_backbone: Path, tmp_path: Path, how: str, in_thread: bool
) -> None:
    """Whatever a library looks for in a release to come; it may go on without what it could not
    open."""
    path = Path(shutil.copytree(tiny_backbone, tmp_path / "model"))
    other = path / "sub" / "words.txt"
    other.parent.mkdir()
    (other.parent / "x").mkdir()
    other.write_text("w1")
    with ThreadPoolExecutor(1) as pool:

        def opened(file: Path) -> None:
            with contextlib.suppress(Exception):
                pool.submit(_OPEN[how], file).result() if in_thread else _OPEN[how](file)

        (tmp_path / "link").symlink_to(path)
        for model in (path, tmp_path / "link"):
            for file in (other, model / "sub" / "words.txt"):
                with (
                    pytest.raises(UsageError, match=r"got 'sub/words.txt' in its directory"),
                    nothing_else_read(model),
                ):
                    opened(file)
        with nothing_else_read(path):
            (path / "config.json").read_bytes()
            (tmp_path / "elsewhere").write_text("")
    assert other.read_text() == "w1"  # and afterwards it is a file as any other


def _dynamic(path: Path, kind: str = "dynamic", positions: int = 16) -> Path:
    """A decoder whose rotary embeddings are scaled by the longest row it has seen."""
    torch.manual_seed(1)
    build_backbone(path)  # its tokenizer
    LlamaModel(
        LlamaConfig(
            vocab_size=80,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=32,
            max_position_embeddings=positions,
            rope_parameters={"rope_type": kind, "factor": 4.0, "rope_theta": 10000.0},
        )
    ).save_pretrained(path)
    return path


def _masking(path: Path) -> Path:
    """A vision model that draws what it looks at, when it answers too."""
    build_vision(path)
    ViTMAEModel(
        ViTMAEConfig(
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=8,
            patch_size=2,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=16,
        )
    ).save_pretrained(path)
    return path


@pytest.mark.parametrize("build", [_dynamic, _masking])
def test_a_backbone_that_remembers_or_draws_is_refused(
    tmp_path: Path, build: Callable[[Path], Path]
) -> None:
    """Held-out rows, and other slices' whose states are kept or not, would decide a stage's
    bytes."""
    found = find_backbone(str(build(tmp_path / "m")))
    with pytest.raises(UsageError, match="makes the same of a row each time"):
        check_repeats_itself(load_model(found), 64)
    recipe = replace(TinySystem(found.path, 1, 1, 1).recipe, max_length=64)
    with pytest.raises(UsageError, match="makes the same of a row each time"):
        load_staged(found, recipe)


@pytest.mark.parametrize("positions", [16, 64, 4096])
def test_a_backbone_that_remembers_long_rows_alone_is_taken_for_short_ones(
    tmp_path: Path, positions: int
) -> None:
    """And one that is scaled by a constant for any."""
    model = load_model(find_backbone(str(_dynamic(tmp_path / "m", positions=positions))))
    check_repeats_itself(model, positions)
    check_repeats_itself(
        load_model(find_backbone(str(_dynamic(tmp_path / "n", "linear", positions)))), 128
    )


@pytest.mark.parametrize("length", [1, 2, 3, 16, 5000])
def test_rows_of_any_length_are_asked_for(tiny_backbone: Path, length: int) -> None:
    """More than a model takes, too: that is told where it is trained."""
    check_repeats_itself(load_model(find_backbone(str(tiny_backbone))), length)


_LOADING: dict[str, tuple[str, Callable[[Path], Path], Callable[[Backbone], object]]] = {
    "settings": ("AutoConfig", build_backbone, lambda found: load_settings(found.path)),
    "a tokenizer": ("AutoTokenizer", build_backbone, load_tokenizer),
    "a model": ("AutoModel", build_backbone, load_model),
    "a language model": ("AutoModelForCausalLM", build_language_model, load_language_model),
    "an image processor": ("AutoImageProcessor", build_vision, load_image_processor),
}


@pytest.mark.parametrize("what", _LOADING)
def test_whatever_is_loaded_of_a_model_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    name, build, load = _LOADING[what]
    found = find_backbone(str(build(tmp_path / "model")))
    (found.path / "sub").mkdir()
    (found.path / "sub" / "more.json").write_text("{}")
    from_pretrained = getattr(backbone, name).from_pretrained

    def reads_more(path: Path, **asked: object) -> object:
        with contextlib.suppress(Exception):
            (path / "sub" / "more.json").read_text()
        return from_pretrained(path, **asked)

    load(found)
    monkeypatch.setattr(getattr(backbone, name), "from_pretrained", reads_more)
    with pytest.raises(UsageError, match=r"got 'sub/more.json' in its directory"):
        load(found)


@pytest.mark.parametrize("dropout", [None, 0.0, 1e-6, 0.3])
def test_a_tokenizer_that_draws_how_it_cuts_is_refused(
    tiny_backbone: Path, tmp_path: Path, dropout: float | None
) -> None:
    """Hazard 16: one key would have other bytes each time."""
    path = Path(shutil.copytree(tiny_backbone, tmp_path / "model"))
    words = {"[UNK]": 0, "w": 1, "1": 2, "w1": 3}
    told = json.loads((path / "tokenizer.json").read_bytes())
    told |= {
        "model": {"type": "BPE", "vocab": words, "merges": [["w", "1"]], "dropout": dropout},
        "added_tokens": [],
        "post_processor": None,
    }
    (path / "tokenizer.json").write_text(json.dumps(told))
    found = find_backbone(str(path))
    with pytest.raises(UsageError, match="draws how") if dropout else contextlib.nullcontext():
        load_tokenizer(found)


class _Python:
    """A tokenizer that is written in Python."""

    is_fast = False

    def __init__(self, draws: bool, **told: object) -> None:
        self.init_kwargs, self._draws, self._asked = told, draws, 0

    def __call__(self, text: str) -> dict[str, list[int]]:
        self._asked += self._draws
        return {"input_ids": [self._asked, len(text)]}


def test_whatever_way_a_tokenizer_draws(tiny_backbone: Path) -> None:
    unigram = load_tokenizer(find_backbone(str(tiny_backbone)))
    raw = Tokenizer(models.Unigram([("w", -1.0), ("1", -2.0), ("w1", -3.0)], 0))
    raw.model.alpha, raw.model.nbest_size = 0.1, 8  # type: ignore[attr-defined]
    unigram._tokenizer = raw
    sampling: Any = _Python(draws=False, sp_model_kwargs={"enable_sampling": True})
    otherwise: Any = _Python(draws=True)
    for tokenizer in (unigram, sampling, otherwise):
        with pytest.raises(UsageError, match="draws how"):
            check_repeats(tokenizer)
    plain: Any = _Python(draws=False, sp_model_kwargs={})
    check_repeats(plain)


def test_a_tokenizer_that_is_put_together_from_several_files_has_a_digest_of_what_it_is(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever setting transformers takes its words by."""
    path = Path(shutil.copytree(tiny_backbone, tmp_path / "model"))
    (path / "tokenizer.json").unlink()
    _set(path, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "vocab": "words"})
    monkeypatch.setattr("s3t_core.learning.backbone.check_settings", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    told = []
    for words in (["w1", "w2"], ["w2", "w1"], ["w1", "w2"]):
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        (tmp_path / "words").write_text("\n".join(special + words))
        told.append(find_backbone(str(path)).tokenizer_digest)
    assert told[0] == told[2] != told[1]


def _without_two(weights: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in weights.items() if not k.endswith("output.dense.weight")}


def _under_a_prefix(weights: dict[str, Any]) -> dict[str, Any]:
    return {f"module.{k}": v for k, v in weights.items()}


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (_without_two, {}),
        (_under_a_prefix, {}),
        (dict, {"num_hidden_layers": 9}),
        (dict, {"intermediate_size": 17}),
    ],
    ids=["some are missing", "other names", "a layer too many", "another shape"],
)
def test_weights_that_the_files_lack_are_not_drawn_at_random(
    tiny_backbone: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    settings: dict[str, object],
) -> None:
    """In each process anew: under equal digests and keys."""
    path = Path(shutil.copytree(tiny_backbone, tmp_path / "model"))
    file = path / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    _set(path, "config.json", settings)
    with pytest.raises((UsageError, RuntimeError), match=r"not there or have another|mismatch"):
        load_model(find_backbone(str(path)))


def test_a_link_to_weights_that_are_gone_is_told(tiny_backbone: Path, tmp_path: Path) -> None:
    """As the hub's cache has them, whose files somebody removed."""
    path = Path(shutil.copytree(tiny_backbone, tmp_path / "model"))
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to(tmp_path / "blobs" / "gone")
    with pytest.raises(UsageError, match="safetensors"):
        find_backbone(str(path))


def test_a_pooler_that_nothing_asks_may_be_missing(tiny_backbone: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_backbone, tmp_path / "model"))
    file = path / "model.safetensors"
    left = {k: v for k, v in load_file(file).items() if not k.startswith("pooler.")}
    save_file(left, file, metadata={"format": "pt"})
    load_model(find_backbone(str(path)))


def test_a_row_that_is_another_kind_of_image_starts_no_program_and_writes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow has EPS drawn by Ghostscript, from a file that it writes for it."""
    ran, within = tmp_path / "ran", tmp_path / "bin"
    within.mkdir()
    ghostscript = within / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{within}:{os.environ['PATH']}")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    picture = Image.new("RGB", (8, 8), (9, 99, 199))
    for kind in ("EPS", "BMP", "GIF", "TIFF", "PPM", "ICO"):
        packed = io.BytesIO()
        picture.save(packed, kind)
        with pytest.raises(DataError, match="PNG or JPEG"):
            _image(base64.b64encode(packed.getvalue()).decode())
    for kind in ("PNG", "JPEG"):
        packed = io.BytesIO()
        picture.save(packed, kind)
        assert _image(base64.b64encode(packed.getvalue()).decode()).size == (8, 8)
    assert not ran.exists() and not list(temporary.iterdir())


def test_settings_that_name_what_has_a_digest_are_not(tiny_backbone: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_backbone, tmp_path / "model"))
    _set(path, "tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.json"]})
    _set(path, "tokenizer_config.json", {"name_or_path": str(tmp_path), "x": "tokenizer.json"})
    before = find_backbone(str(path))
    (path / "notes.json").write_text("no JSON")
    assert find_backbone(str(path)).digest == before.digest


def test_no_code_that_lies_in_a_model_is_run_whatever_stands_on_standard_input(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(tiny_backbone, tmp_path / "model"))
    ran = tmp_path / "ran"
    (path / "other.py").write_text(
        f"from transformers import BertConfig, BertModel\nopen({str(ran)!r}, 'w')\n"
        "class C(BertConfig):\n    model_type = 'x-other'\nclass M(BertModel):\n    pass\n"
    )
    _set(path, "config.json", {"auto_map": {"AutoConfig": "other.C"}, "model_type": "x-other"})
    program = (
        "import sys; from s3t_core.learning.backbone import find_backbone; "
        "find_backbone(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        input="y\n" * 5,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and not ran.exists()


def _set(path: Path, name: str, more: dict[str, object]) -> None:
    file = path / name
    told = json.loads(file.read_bytes()) if file.exists() else {}
    file.write_text(json.dumps(told | more))


def test_a_job_under_another_numeric_profile_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    config = example_config()
    config = config.model_copy(update={"system": config.system.model_copy(update={"slices": 2})})
    job = _job(tmp_path, config, "minilm")[0]
    other = replace(
        job, recipe=replace(job.recipe, profile=NumericProfile("2.0", "x", "y", "AVX2", 1))
    )
    with pytest.raises(GuaranteeError, match="numeric profile"):
        ProcessRunner().train(other)
    with pytest.raises(BackboneChanged, match="recorded backbone"):
        ProcessRunner().train(replace(job, recipe=replace(job.recipe, backbone_digest="0" * 64)))


@pytest.mark.slow
def test_a_device_that_is_not_there_is_told_before_anything_is_trained(tiny_backbone: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(UsageError, match='set it to "cpu"'):
        ProcessRunner().describe(DescribeJob(str(tiny_backbone), 1, "cuda"))


def test_a_stage_process_that_dies_is_an_error_and_leaves_no_artifact(tmp_path: Path) -> None:
    import os
    import signal
    import threading
    import time

    import psutil

    job = _job(
        tmp_path,
        example_config().model_copy(
            update={"system": example_config().system.model_copy(update={"slices": 2})}
        ),
        "minilm",
    )[1]

    def kill_the_youngest() -> None:
        for _ in range(400):
            busy = [
                p
                for p in psutil.Process(os.getpid()).children(recursive=True)
                if p.cpu_times().user > 0.3 and p.ppid() != os.getpid()
            ]
            if busy:
                os.kill(max(busy, key=lambda p: p.create_time()).pid, signal.SIGKILL)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill_the_youngest)
    killer.start()
    with pytest.raises(TrainingError, match="died"):
        ProcessRunner().train(job)
    killer.join()
    assert list(job.store.digests()) == []


def test_a_loss_that_is_not_finite_stops_the_stage(tmp_path: Path) -> None:
    """A backbone whose last layer overflows: infinite features, and a zero head makes of them no
    number."""
    from transformers import BertModel

    from s3t_core.learning.stage import train_stage

    path = build_backbone(tmp_path / "wild", layers=2)
    model = BertModel.from_pretrained(path)
    torch.nn.init.constant_(model.encoder.layer[-1].output.LayerNorm.weight, float("inf"))
    model.save_pretrained(path)
    system = TinySystem(path, 1, 1, 1)
    data = make_slices(1, 1)
    with pytest.raises(TrainingError, match="finite loss"):
        train_stage(
            system.backbone,
            system.recipe,
            system.plan(data).stages[0],
            [data[SliceId(0, 0)]],
            [],
            [],
        )
