"""A language model is as exact as the others: stages that are adapters alone, words of the
backbone's own head, texts that never depend on what was erased."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from s3t_core.config import ADAPTER_KINDS
from s3t_core.conversations import Conversation, Turn, conversation_text
from s3t_core.domain import Combine, Release
from s3t_core.errors import DataError, NoLiveShard, UsageError
from s3t_core.learning.activations import Activations, states_key
from s3t_core.learning.backbone import find_backbone, load_language_model
from s3t_core.learning.batched_shards import ShardStages
from s3t_core.learning.chat_template import drawing_nothing, template_of
from s3t_core.learning.encoding import ConversationReader, load_reader
from s3t_core.learning.ensemble import Ensemble
from s3t_core.learning.replica import load_staged
from s3t_core.learning.stage import COMPUTED, numeric_profile
from s3t_core.learning.tasks.task import NOT_LEARNT
from s3t_core.learning.writing import Writer, Writing
from tests.exactness.system import DEVICE, Slices, TinySystem, make_slices
from tests.exactness.test_tasks import GONE, _kept, _untainted
from tests.tiny import CHAT, build_backbone, build_language_model

SHARDS, SLICES, BUDGET = 2, 3, 2
QUESTIONS: list[Conversation] = [
    (Turn("prompt", "w1 w2 w3"),),
    (Turn("user", "w4"),),
    (Turn("text", "w5 w6"),),
]
COMBINED: tuple[Combine, ...] = ("votes", "merged")


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_language_model(tmp_path_factory.mktemp("writer"))


def _system(writer: Path, kind: str = "lora", **more: Any) -> TinySystem:
    adapter = {"kind": kind, "target_modules": ["q_proj", "v_proj"]}
    return TinySystem(writer, SHARDS, SLICES, BUDGET, adapter=adapter, task="generation", **more)


def _data() -> Slices:
    """Rows of all three forms."""

    def said(text: str, number: int) -> str:
        first, _, rest = text.partition(" ")
        forms = (
            [Turn("prompt", first), Turn("response", rest)],
            [
                Turn("user", first),
                Turn("assistant", rest),
                Turn("user", "w1"),
                Turn("assistant", "w2"),
            ],
            [Turn("text", text)],
        )
        return conversation_text(forms[number % 3])

    return {
        place: [r._replace(text=said(r.text, i), label="") for i, r in enumerate(rows)]
        for place, rows in make_slices(SHARDS, SLICES, 4).items()
    }


def _model(system: TinySystem, release: Release, combine: Combine = "votes") -> Ensemble:
    return Ensemble(
        system.backbone, system.recipe, release, system.artifacts.__getitem__, combine=combine
    )


CASES = [
    pytest.param(
        kind,
        precision,
        marks=() if (number + (precision == "bfloat16")) % 2 == 0 else pytest.mark.long,
        id=f"{kind}-{precision}",
    )
    for number, kind in enumerate(ADAPTER_KINDS)
    for precision in ("float32", "bfloat16")
]


@pytest.mark.long_but_first
@pytest.mark.parametrize(("kind", "precision"), CASES)
def test_what_is_left_after_an_erasure_equals_what_never_saw_the_row(
    writer: Path, tmp_path: Path, kind: str, precision: str
) -> None:
    def system(activations: Activations = COMPUTED, **more: Any) -> TinySystem:
        return _system(writer, kind, dtype=precision, activations=activations, **more)

    data = _data()
    remaining = data | {GONE: data[GONE][1:]}
    with_it, without = system(), system()
    before, after = with_it.train(data), without.train(remaining)
    mine, theirs = _untainted(with_it.release(before)), _untainted(without.release(after))
    assert mine.stage_keys() == theirs.stage_keys()
    assert {s.key for s in before.stages} != {s.key for s in after.stages}
    for key in mine.stage_keys():
        assert with_it.artifacts[key] == without.artifacts[key]
    rows = [row for each in remaining.values() for row in each]
    for combine in COMBINED:
        models = [_model(with_it, mine, combine), _model(without, theirs, combine)]
        assert models[0].score(rows) == models[1].score(rows)
        written = [model.write(QUESTIONS, Writing(8, 0.7, 3)) for model in models]
        assert written[0] == written[1]
    retrained = system(artifacts=dict(with_it.artifacts))
    assert retrained.train(remaining) == after and 0 < retrained.trained < without.trained
    kept = _kept(tmp_path / "activations", remaining)
    for activations in (kept, kept, Activations(memory_bytes=0, spill=tmp_path)):
        again = system(activations)
        again.train(remaining)
        assert again.artifacts == without.artifacts
    assert {k: retrained.artifacts[k] for k in without.artifacts} == without.artifacts


def test_a_stage_is_its_adapter_alone_and_no_stage_changes_a_word(writer: Path) -> None:
    system = _system(writer)
    plan = system.train(_data())
    from safetensors.torch import load

    for artifact in system.artifacts.values():
        assert load(artifact) and all(name.startswith("adapter.") for name in load(artifact))
    staged = load_staged(system.backbone, system.recipe)
    _, words = load_language_model(system.backbone)
    stage = system.release(plan).replicas[0].stages[0]
    staged.load("one", 1, system.artifacts[stage.digest])
    staged.trainable("one")
    assert staged.words is not None
    assert not any(p.requires_grad for p in staged.words.parameters())
    assert all(
        torch.equal(a.cpu(), b)
        for a, b in zip(staged.words.parameters(), words.parameters(), strict=True)
    )


def _patient(system: TinySystem) -> TinySystem:
    """The same, with adapters and time enough to learn by heart."""
    every = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    system.recipe = replace(
        system.recipe,
        training={**system.recipe.training, "epochs": 40, "learning_rate": 0.02},
        adapter={**system.recipe.adapter, "rank": 8, "target_modules": every},
    )
    return system


def _answered(text: str) -> str:
    return conversation_text([Turn("user", "w1 w2"), Turn("assistant", text)])


@pytest.fixture(scope="module")
def learnt(writer: Path) -> tuple[TinySystem, Release]:
    """Everybody says "w7 w8 w9" when asked "w1"."""
    system = _patient(_system(writer))
    asked = _answered("w7 w8 w9")
    data = {
        place: [row._replace(text=asked, label="") for row in rows]
        for place, rows in make_slices(SHARDS, SLICES, 4).items()
    }
    return system, system.release(system.train(data))


@pytest.mark.parametrize("combine", COMBINED)
def test_what_is_learnt_is_said_and_ends(
    learnt: tuple[TinySystem, Release], combine: Combine
) -> None:
    model = _model(*learnt, combine)
    (told,) = model.write([(Turn("user", "w1 w2"),)], Writing(10))
    assert (told.text, told.finish, told.tokens) == ("w7 w8 w9", "stop", 4)
    (cut,) = model.write([(Turn("user", "w1 w2"),)], Writing(2))
    assert (cut.text, cut.finish, cut.tokens) == ("w7 w8", "length", 2)
    *pieces, whole = model.stream((Turn("user", "w1 w2"),), Writing(10))
    assert "".join(map(str, pieces)) == "w7 w8 w9" and len(pieces) == 3 and whole == told
    assert told.prompt_tokens >= 2
    score = model.score(next(iter(_taught().values())))
    assert score is not None and score.metric == "perplexity" and not score.higher_is_better
    assert 1 <= score.value < 4, "of 67 words"


def _taught() -> Slices:
    asked = _answered("w7 w8 w9")
    return {p: [r._replace(text=asked) for r in rows] for p, rows in make_slices(1, 1, 3).items()}


def test_drawn_texts_are_those_of_their_seed_and_place(
    learnt: tuple[TinySystem, Release],
) -> None:
    model = _model(*learnt)
    asked = [(Turn("prompt", "w30 w31"),)] * 3
    hot = Writing(12, temperature=5.0, seed=11)
    first = model.write(asked, hot)
    assert first == model.write(asked, hot)
    assert len({t.text for t in first}) == 3, "each place draws for itself"
    assert first != model.write(asked, replace(hot, seed=12))
    assert model.write(asked[:1], replace(hot, seed=12))[0].text == first[1].text


def test_shards_write_the_mean_of_what_they_find_likely(writer: Path) -> None:
    """Against each shard's whole forward pass, without cache and padding; the shards learnt to say
    other things."""
    system, question = _patient(_system(writer)), (Turn("user", "w1 w2"),)
    said_by = ["w7 w8 w9 w7 w8", "w7 w20 w21 w22 w23"]
    data = {
        place: [row._replace(text=_answered(said_by[place.shard]), label="") for row in rows]
        for place, rows in make_slices(SHARDS, SLICES, 4).items()
    }
    release = system.release(system.train(data))
    (told,) = _model(system, release).write([question], Writing(8))
    reader = load_reader(system.backbone, system.recipe)
    assert isinstance(reader, ConversationReader)
    ids = reader.question(question)
    staged = load_staged(system.backbone, system.recipe)
    shards = []
    for replica in filter(None, map(release.serving, release.shards())):
        names = [f"{replica.shard}_{s.index}" for s in replica.stages]
        for name, stage in zip(names, replica.stages, strict=True):
            staged.load(name, stage.index, system.artifacts[stage.digest])
        shards.append(names)
    said: list[int] = []
    assert staged.words is not None and told.tokens > 3
    with torch.no_grad():
        for _ in range(told.tokens):
            total = torch.zeros(())
            for names in shards:
                staged.activate(names)
                states = staged.split.states({"input_ids": torch.tensor([ids + said])})
                total = total + torch.softmax(staged.words(states[0, -1]), dim=-1)
            said.append(int(total.argmax()))
    assert reader.text([i for i in said if i not in reader.ends]) == told.text


def test_a_batch_says_what_each_says_alone(learnt: tuple[TinySystem, Release]) -> None:
    """But for last bits: here no two words are as likely."""
    model = _model(*learnt)
    asked: list[Conversation] = [
        (Turn("user", "w1 w2"),),
        (Turn("user", "w1"),),
        (Turn("prompt", "w1 w2 w3 w4 w5 w6"),),
    ]
    together = model.write(asked, Writing(6))
    assert together == [model.write([each], Writing(6))[0] for each in asked]


@pytest.mark.parametrize("places", ["turned", "learnt"])
def test_without_adapters_it_writes_as_the_plain_model_does(
    writer: Path, tmp_path: Path, places: str
) -> None:
    """The head, the cache, the mask and the places of padded prompts are those of transformers: for
    a backbone that only sees how far apart two tokens are, and for one that sees where each is."""
    folder = writer if places == "turned" else _with_learnt_places(writer, tmp_path / "gpt2")
    backbone = find_backbone(str(folder))
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    system = _system(folder)
    staged = load_staged(backbone, system.recipe)
    reader = load_reader(backbone, system.recipe)
    assert isinstance(reader, ConversationReader)
    author = Writer(staged, [ShardStages({1: "none"})], reader, merged=True)
    prompts = [[2, 9, 10, 11], [2, 20], [2, 30, 31]]
    for prompt, told in zip(prompts, author.write(prompts, Writing(5)), strict=True):
        ids = plain.generate(torch.tensor([prompt]), max_new_tokens=5, do_sample=False)
        assert told.text == tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True)


def _with_learnt_places(writer: Path, folder: Path) -> Path:
    """A random GPT-2 with the same tokenizer."""
    torch.manual_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(writer)
    GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=64,
            n_embd=16,
            n_layer=3,
            n_head=2,
            initializer_range=0.5,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_row_teaches_as_much_as_another_however_long_it_is(writer: Path) -> None:
    """Hazard 15: a loss over the tokens of a batch would weigh a row by its neighbours' lengths."""
    system = _system(writer)
    staged = load_staged(system.backbone, system.recipe)
    reader = load_reader(system.backbone, system.recipe)
    assert isinstance(reader, ConversationReader)
    texts = [
        conversation_text([Turn("prompt", "w1"), Turn("response", " ".join(["w2"] * n))])
        for n in (1, 9, 4)
    ]
    items, targets = reader.examples(texts)

    def loss(rows: list[int]) -> torch.Tensor:
        with torch.no_grad():
            states = staged.split.states(reader.batch([items[i] for i in rows]))
        stacked = staged.task.stacked([targets[i] for i in rows])
        return staged.task.loss(states, stacked.to(DEVICE))

    alone = torch.stack([loss([i]) for i in range(3)])
    assert torch.allclose(loss([0, 1, 2]), alone.mean(), atol=1e-6)
    assert not torch.allclose(alone[0], alone[1])


@pytest.mark.parametrize("length", [1, 3, 10, 15, 16, 17, 40])
@pytest.mark.parametrize("answer", [1, 5, 14, 15, 16, 30])
def test_of_every_row_something_is_left_to_learn(writer: Path, length: int, answer: int) -> None:
    """Hazard 17: a row that is too long is cut by itself, and never to nothing."""
    reader = load_reader(find_backbone(str(writer)), _system(writer).recipe)
    assert isinstance(reader, ConversationReader) and reader.max_length == 16
    prompt, response = (" ".join([word] * n) for word, n in (("w1", length), ("w2", answer)))
    for turns in (
        [Turn("prompt", prompt), Turn("response", response)],
        [Turn("user", prompt), Turn("assistant", response)],
        [Turn("text", f"{prompt} {response}")],
    ):
        (ids,), (learnt,) = reader.examples([conversation_text(turns)])
        assert len(ids) == len(learnt) <= 16
        assert learnt[0] == NOT_LEARNT and any(i != NOT_LEARNT for i in learnt)
        assert all(t in (i, NOT_LEARNT) for i, t in zip(ids, learnt, strict=True))


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "chat template"),
        ("{{ strftime_now('%Y') }}{{ messages[0].content }}", "the date"),
        ("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", "changes"),
        ("{{ raise_exception('no system') }}", "roles"),
        ("{{ ['w1', 'w2'] | random }}{{ messages[0].content }}", "draws"),
        ("{{ messages | map(attribute='content') | map('random') | join }}", "draws"),
        ("{% filter random %}w1{% endfilter %}", "draws"),
        ("{% for m in messages %}{% break %}{% endfor %}{{ lipsum(1) }}", "draws"),
        ("{% generation %}{{ 'ab' | random }}{% endgeneration %}", "draws"),
        ("{%+ generation %}{{ 'ab' | random }}{%+ endgeneration %}", "draws"),
        ("{{ [['w1', 'w2']] | map('ran' ~ 'dom') | first }}", "computed"),
        ("{{ [['w1', 'w2']] | map('modnar' | reverse) | first }}", "computed"),
        ("{{ messages | selectattr('role', 'equal' ~ 'to', 'user') | list }}", "computed"),
        ("{{ (raise_exception | string)[-6] }}", "shows the function"),
        ("{{ range }}", "shows the function"),
        ("{{ messages | pprint }}", "'pprint', which is not one"),
        ("{{ messages[0].content | shuffled }}", "'shuffled', which is not one"),
        ("{% unknown %}{{ 'ab' | random }}", "cannot be read"),
        ("{% trans %}w1{% endtrans %}", "cannot be read"),
        ("{{ now() }}", "the date"),
    ],
)
def test_a_template_that_cannot_be_learnt_from_is_refused(
    tmp_path: Path, template: str | None, told: str
) -> None:
    """Hazard 16 among them: a stage that depended on the day could not be trained again."""
    path = build_language_model(tmp_path / "m", template=template)
    reader = load_reader(find_backbone(str(path)), _system(path).recipe)
    asked = conversation_text(
        [Turn("user", "w1"), Turn("assistant", "w2"), Turn("user", "w3"), Turn("assistant", "w4")]
    )
    with pytest.raises(UsageError, match=told):
        reader.items([asked])


def test_a_template_may_say_that_something_is_random() -> None:
    told = "Be random. {% for m in messages %}{{ m.content }} lipsum {% endfor %}"
    assert template_of(told) == template_of({"default": told, "tools": "x"}) == told
    for several in ({}, {"tools": told}, None, ""):
        with pytest.raises(UsageError, match='the one called "default"'):
            template_of(several)


CHATS = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama": "{%- set loop_messages = messages[1:] if messages[0]['role'] == 'system' else messages"
    " %}{%- for message in loop_messages %}{%- if (message['role'] == 'user') != (loop.index0 % 2 "
    "== 0) %}{{ raise_exception('roles must alternate') }}{%- endif %}{{- message['content'] | trim"
    " }}{%- endfor %}",
    "tools": "{%- set ns = namespace(found=false) %}{%- for m in messages | selectattr('role', "
    "'equalto', 'user') | map(attribute='content') | list %}{{ m | tojson }}{% if loop.last %}"
    "{% break %}{% endif %}{%- endfor %}{{ messages | select('in', messages) | list | length }}",
    "marked": "{% for m in messages %}{%- generation -%}{{ m.content }}{%- endgeneration -%}"
    "{% endfor %}{% macro say(x) %}{{ x | default('') | upper }}{% endmacro %}{{ say('w1') }}",
}


@pytest.mark.parametrize("name", CHATS)
def test_templates_as_models_have_them_are_taken(name: str) -> None:
    assert template_of(CHATS[name]) == CHATS[name]


def test_what_draws_all_the_same_draws_the_same() -> None:
    """And who else draws goes on from where they were."""
    random.seed(3)
    wanted = [random.random() for _ in range(3)]
    random.seed(3)
    found = [random.random()]
    drawn = set()
    for _ in range(2):
        with drawing_nothing():
            drawn.add(random.random())
        found.append(random.random())
    assert found == wanted and len(drawn) == 1


def test_further_templates_have_a_digest(tmp_path: Path) -> None:
    """Transformers reads them from a directory of their own; one of them is called "default"."""
    path = build_language_model(tmp_path / "m")
    asked = conversation_text([Turn("user", "w1"), Turn("assistant", "w2")])
    digests, tokens = set(), set()
    for begin in ("", "w7 ", "w8 "):
        if begin:
            more = path / "additional_chat_templates" / "default.jinja"
            more.parent.mkdir(exist_ok=True)
            more.write_text(begin + CHAT)
        found = find_backbone(str(path))
        digests.add(found.tokenizer_digest)
        reader = load_reader(found, _system(path).recipe)
        tokens.add(str(reader.items([asked])))
    assert len(digests) == len(tokens) == 3


def test_untied_words_write_too(tmp_path: Path) -> None:
    path = build_language_model(tmp_path / "m", tied=False)
    system = _system(path)
    release = system.release(system.train(_data()))
    assert _model(system, release).write(QUESTIONS, Writing(3))


def test_a_backbone_that_writes_nothing_is_refused(tmp_path: Path) -> None:
    path = build_backbone(tmp_path / "m")
    with pytest.raises(UsageError, match="causal language model"):
        load_language_model(find_backbone(str(path)))


def test_a_tokenizer_with_more_words_than_the_backbone_is_refused(tmp_path: Path) -> None:
    path = build_language_model(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens(["w999"])
    tokenizer.save_pretrained(path)
    with pytest.raises(UsageError, match="words"):
        load_language_model(find_backbone(str(path)))


def test_a_prompt_that_leaves_no_room_is_refused(learnt: tuple[TinySystem, Release]) -> None:
    model = _model(*learnt)
    with pytest.raises(DataError, match="leaves room for 8 new tokens within the 64"):
        model.write([(Turn("prompt", " ".join(["w1"] * 60)),)], Writing(8))


def test_of_a_chat_the_assistants_turns_are_learnt_and_nothing_else(writer: Path) -> None:
    system = _system(writer)
    reader = load_reader(system.backbone, system.recipe)
    assert isinstance(reader, ConversationReader)
    said = [("system", "w1"), ("user", "w2 w3"), ("assistant", "w4 w5"), ("user", "w6")]
    text = conversation_text(Turn(*each) for each in [*said, ("assistant", "w7")])
    ((ids,), (targets,)) = reader.examples([text])
    words = [reader.tokenizer.convert_ids_to_tokens(i) for i in ids]
    learnt = [w for w, t in zip(words, targets, strict=True) if t != NOT_LEARNT]
    assert learnt == ["w4", "w5", "[END]", "w7", "[END]"] and "w6" in words and "w2" in words
    assert all(t in (i, NOT_LEARNT) for i, t in zip(ids, targets, strict=True))


def test_dead_shards_write_nothing(learnt: tuple[TinySystem, Release]) -> None:
    system, release = learnt
    dead = replace(release, replicas=tuple(replace(r, stages=()) for r in release.replicas))
    for combine in COMBINED:
        model = _model(system, dead, combine)
        with pytest.raises(NoLiveShard):
            model.write(QUESTIONS, Writing(3))
        with pytest.raises(NoLiveShard):
            next(model.stream(QUESTIONS[0], Writing(3)))


@pytest.mark.parametrize("ask", [{"most": 0}, {"temperature": -1.0}, {"seed": -1}])
def test_how_to_write_is_checked(ask: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="new token"):
        Writing(**ask)


def test_kept_states_of_two_tasks_are_not_taken_for_each_other(writer: Path) -> None:
    """One text is other tokens where it is read as a conversation."""
    system = _system(writer)
    as_label = replace(system.recipe, task={}, labels=("a", "b"))
    keys = {states_key(recipe, "d" * 64, 1, 3) for recipe in (system.recipe, as_label)}
    assert len(keys) == 2


def test_what_writes_chats_is_in_the_profile(writer: Path, tiny_backbone: Path) -> None:
    told = numeric_profile(1, "cpu", find_backbone(str(writer))).tokenizers
    assert "jinja2 3" in told and "markupsafe" in told and "unicode" in told
    assert "jinja2" not in numeric_profile(1, "cpu", find_backbone(str(tiny_backbone))).tokenizers
