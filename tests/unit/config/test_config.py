"""s3t.toml: every key explained, every wrong value refused with what was expected."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.examples import example_config
from s3t_core.config import Config, DataConfig, parse_config, render_config
from s3t_core.config.text import merge_config, new_config, render_value
from s3t_core.errors import ConfigError


def test_what_init_writes_reads_back_unchanged_and_explains_every_key() -> None:
    text = render_config(Config())
    assert parse_config(text) == Config()
    lines = text.splitlines()
    keys = [i for i, line in enumerate(lines) if " = " in line and not line.startswith(("#", " "))]
    assert len(keys) == sum(len(type(section).model_fields) for _, section in Config())
    assert all(lines[i - 1].startswith("# ") for i in keys)


def test_every_key_of_the_design_is_there() -> None:
    design = {
        "data": "text label subject record labels held_out held_out_by",
        "system": "name shards slices budget sequences prior",
        "backbone": "model revision max_length",
        "adapter": "kind rank alpha target_modules",
        "training": "epochs batch_size learning_rate head_learning_rate pooling seed dtype device "
        "threads",
        "runner": "kind workers",
        "deletion_budget": "policy min_mean_depth min_accuracy max_requests",
        "erasure": "deadline_days needs_approval cron staleness_seconds keep_clean_versions_days "
        "log_checkpoints_to",
        "tiers": "column values slices",
        "database": "url",
        "store": "url",
        "dvc": "remote",
    }
    for section, keys in design.items():
        assert set(keys.split()) <= set(type(getattr(Config(), section)).model_fields)


def test_the_root_workspace_is_the_example() -> None:
    root = Path(__file__).parents[3]
    assert (root / "s3t.toml").read_text() == render_config(example_config())


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("[data]\nlabels = ['a']", "at least two labels"),
        ("[data]\nlabels = 'a'", "expected a list"),
        ("[data]\nheld_out = 1.0", "less than 1"),
        ("[system]\nbudget = 7", "budget from 1 to 6"),
        ("[system]\nbudget = 0", "greater than or equal to 1"),
        ("[system]\nshards = '3'", "valid integer"),
        ("[system]\nname = '../x'", "match pattern"),
        ("[training]\nlearning_rate = 0", "greater than 0"),
        ("[training]\nlearning_rate = nan", "finite"),
        ("[training]\ndtype = 'float8'", "'auto', 'float32' or 'bfloat16'"),
        ("[adapter]\ntarget_modules = []", "list of module names"),
        ("[sistem]\nshards = 3", "no such key"),
        ("[backbone]\nmodel = 'org/model'\nrevision = 'main'", "a branch or a tag moves"),
        ("[backbone]\nmodel = 'org/model'\nrevision = 'v1.0'", "40 hex digits"),
        ("[backbone]\nmodel = 'org/model'\nrevision = '0a1b2c3'", "a short commit may become two"),
        (
            "[backbone]\nmodel = 'org/model'\nrevision = "
            "'0A1B2C3D4E0A1B2C3D4E0A1B2C3D4E0A1B2C3D4E'",
            "lower case",
        ),
        (
            "[backbone]\nmodel = 'minilm'\nrevision = '0a1b2c3d4e0a1b2c3d4e0a1b2c3d4e0a1b2c3d4e'",
            "expected no revision",
        ),
        ("[data]\ntexts = 'x'", "no such key"),
        ("[data\n", "TOML"),
        ("[deletion_budget]\npolicy = 'never'", "'first_shard_dead'"),
        ("[deletion_budget]\npolicy = 'mean_depth'", "min_mean_depth above 0"),
        ("[deletion_budget]\npolicy = 'requests'", "max_requests above 0"),
        ("[deletion_budget]\npolicy = 'accuracy_floor'", "min_accuracy above 0"),
        ("[deletion_budget]\nmin_mean_depth = 3.5", "no state meets a higher one"),
        ("[runner]\nmax_memory = '0=20GiB'", "that of another"),
        ("[training]\ndevice = 'cuda'\n[runner]\nmax_memory = 'cpu=8GiB'", "that of another"),
        ("[deletion_budget]\nmin_accuracy = 1.5", "less than or equal to 1"),
        ("[system]\nsequences = 'random'", "'cyclic', 'bms' or 'optimised'"),
        ("[system]\nbudget = 4\nsequences = 'bms'", "Latin square"),
        ("[system]\nprior = 'likely'", "expected 'uniform'"),
        ("[system]\nprior = [0.5, 0.5]\nsequences = 'bms'", "3 of them, got 2"),
        ("[system]\nprior = [0.5, 0.3, 0.1]\nsequences = 'bms'", "sums to 1"),
        ("[system]\nprior = [0.5, 0.5, 0.0]\nsequences = 'bms'", "above 0"),
        ("[system]\nprior = [1.2, 0.3, -0.5]\nsequences = 'optimised'", "above 0"),
        ("[system]\nprior = ['a']", "a probability per slice"),
        ("[system]\nprior = [0.5, 0.3, 0.2]", "takes every slice to be as likely"),
        ("[tiers]\nvalues = [['a'], ['*']]", "expected a column"),
        ("[tiers]\ncolumn = 'plan'", "at least two tiers"),
        (
            "[tiers]\ncolumn = 'plan'\nvalues = [['a'], ['*']]\nslices = [1, 3]",
            "sum to the 3 slices",
        ),
        ("[tiers]\ncolumn = 'plan'\nvalues = [['a'], ['a']]\nslices = [1, 2]", "in one tier only"),
        (
            "[tiers]\ncolumn = 'plan'\nvalues = [['a'], []]\nslices = [1, 2]",
            "every tier to have values",
        ),
        (
            "[tiers]\ncolumn = 'plan'\nvalues = [['a'], ['*']]\nslices = [0, 3]",
            "at least one slice",
        ),
        ("[tiers]\nvalues = 'a'", "list of lists"),
        ("[tiers]\nslices = ['a']", "list of slice counts"),
        ("[runner]\nkind = 'ray'", "'local' or 'dask'"),
        ("[runner]\nkind = 'dask'", "an address"),
        ("[runner]\nkind = 'dask'\naddress = 'tcp://h:8786'", "nothing else in common"),
        ("[database]\nurl = 'postgresql://ann:secret@host/db'", "no password"),
        ("[database]\nurl = 'postgresql:///db?password=secret'", "no password"),
        ("[database]\nurl = 'postgresql://host'", "without a database"),
        ("[store]\nurl = 'gs://b/p'", "s3://BUCKET/PREFIX"),
        ("[store]\nurl = 's3://bucket'", "s3://BUCKET/PREFIX"),
        ("[dvc]\nremote = 's3://id:secret@bucket/dvc'", "without keys"),
        ("[registry]\ntracking_uri = 'http://ann:secret@host:5500'", "no password"),
        ("[registry]\ntracking_uri = 'http://host:5500'", "together"),
        ("[registry]\ntracking_uri = 'databricks'", "address of an MLflow server"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(toml: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(toml)
    assert expected in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("toml", ["[training]\ndevice = 'mps'"])
def test_what_later_releases_bring_is_refused_with_not_yet(toml: str) -> None:
    with pytest.raises(ConfigError, match="not work yet"):
        parse_config(toml)


def test_labels_are_asked_for_when_they_are_needed() -> None:
    with pytest.raises(ConfigError, match="labels"):
        Config().require_labels()


def test_what_this_release_brings_is_read() -> None:
    config = parse_config(
        "[system]\nsequences = 'bms'\nprior = [0.5, 0.3, 0.2]\n[tiers]\ncolumn = 'plan'\n"
        "values = [['trial', 'demo'], ['*']]\nslices = [1, 2]\n"
        "[deletion_budget]\npolicy = 'mean_depth'\nmin_mean_depth = 2"
    )
    assert config.system.slice_prior == (0.5, 0.3, 0.2)
    assert config.placement_tiers is not None and config.placement_tiers.span(1) == (1, 2)
    assert parse_config(render_config(config)) == config
    assert Config().placement_tiers is None and Config().system.slice_prior == (1 / 3,) * 3


@given(st.text(min_size=1, max_size=20).filter(lambda s: s.isprintable()))
def test_any_printable_column_name_survives_the_file(name: str) -> None:
    config = Config(data=DataConfig(text=name))
    assert parse_config(render_config(config)) == config


def _texts() -> list[tuple[str, str]]:
    """Every setting that takes a text."""
    return [
        (section, key)
        for section, table in Config()
        for key, value in table
        if isinstance(value, str)
    ]


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_that_a_setting_takes_survives_the_file(told: str) -> None:
    """Line breaks of a template, a delimiter that is a tab, what no editor shows."""
    assert tomllib.loads(f"v = {render_value((told, told))}")["v"] == [told, told]
    for section, key in _texts():
        try:
            config = Config.model_validate({section: {key: told}})
        except ValidationError:
            continue
        assert parse_config(render_config(config)) == config


def test_a_template_of_several_lines_is_merged_with_what_servers_need() -> None:
    data = {"labels": [], "response": "answer", "prompt": "### Asked:\n{what}\n\x7f\t### Answer:\n"}
    config = Config.model_validate({"task": {"kind": "generation"}, "data": data})
    merged = merge_config(config, "[store]\nurl = '/srv/store'\n", "servers.toml")
    assert merged.data == config.data and merged.store.url == "/srv/store"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("[0, 1]", 'write them as strings: ["0", "1"]'),
        ("[1.5, 'x']", 'write them as strings: ["1.5", "x"]'),
        ("[true, false]", 'write them as strings: ["true", "false"]'),
        ("['up', 'up ']", "'up' and 'up '"),
        ("['up', 'u\\u200bp']".replace("'", '"'), "tell apart"),
        ("['up', '']", "one of them empty"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused_with_what_to_write(
    labels: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"[data]\nlabels = {labels}\n")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('delimiter = ";;"', "one character"),
        ('delimiter = "\\n"', "one character"),
        ('encoding = "utf-9"', "an encoding"),
        ('encoding = "base64"', "an encoding"),
        ("encoding = 1", "string"),
    ],
)
def test_a_delimiter_and_an_encoding_that_do_not_exist_are_refused(
    line: str, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_config(f"[data]\n{line}\n")
    assert parse_config('[data]\ndelimiter = "\\t"\nencoding = "cp1252"\n').data.delimiter == "\t"


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"task": {"kind": "regression"}}, "expected a range"),
        ({"task": {"range": [0, 1]}}, "expected a range .* and only there"),
        ({"task": {"kind": "regression", "range": [1, 1]}}, "smallest and the largest"),
        ({"task": {"kind": "regression", "range": [0, float("inf")]}}, "finite|number"),
        ({"task": {"kind": "regression", "range": [True, 2]}}, "smallest and the largest"),
        ({"task": {"kind": "regression", "range": [0, 1], "metric": "accuracy"}}, "'rmse'"),
        ({"task": {"kind": "multilabel", "separator": " "}}, "between two labels"),
        ({"task": {"separator": ";"}}, "no separator"),
        (
            {"task": {"kind": "multilabel", "separator": ";"}, "data": {"labels": ["a;b", "c"]}},
            "stands in no label",
        ),
        (
            {
                "task": {"kind": "regression", "range": [0, 1]},
                "data": {"labels": ["a", "b"]},
            },
            "expected none",
        ),
        (
            {"task": {"metric": "macro_f1"}, "deletion_budget": {"min_accuracy": 0.5}},
            "worst_score",
        ),
        (
            {"deletion_budget": {"min_accuracy": 0.5, "worst_score": 0.5}},
            "min_accuracy or worst_score",
        ),
        ({"deletion_budget": {"policy": "score_floor"}}, "worst_score"),
        ({"task": {"kind": "poetry"}}, "multilabel"),
    ],
    ids=str,
)
def test_a_task_that_does_not_fit_is_refused_with_what_to_write(
    document: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Config.model_validate(document)


def test_a_regression_needs_no_labels() -> None:
    config = Config.model_validate({"task": {"kind": "regression", "range": [1, 5]}})
    assert config.require_labels() == () and config.task.measured_by == "rmse"


@pytest.mark.parametrize(
    ("text", "combine"),
    [
        ("", "merged"),
        ("[serving]\nmax_new_tokens = 9\n", "merged"),
        ("[serving]\ncombine = 'votes'\n", "votes"),
        ("[task]\nkind = 'generation'\n[data]\nprompt = 'q'\nresponse = 'a'\n", "merged"),
        ("[adapter]\nkind = 'ia3'\n", "merged"),
        ("[adapter]\nkind = 'oft'\n", "votes"),
        ("[task]\nkind = 'regression'\nrange = [0.0, 1.0]\n", "votes"),
        ("[runner]\nmax_memory = 'cpu=8GiB'\n", "votes"),
    ],
)
def test_a_new_workspace_answers_as_one_model_where_it_can_and_nothing_else_is_said(
    text: str, combine: str
) -> None:
    """What an s3t.toml that is there leaves out stays what it was."""
    made = new_config(text, "mine.toml")
    assert made.serving.combine == combine
    assert parse_config(render_config(made)) == made
    assert parse_config(text).serving.combine == "votes"
    unlike = {n for n in Config.model_fields if getattr(made, n) != getattr(parse_config(text), n)}
    assert unlike <= {"serving"}
