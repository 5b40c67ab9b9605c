"""A column that stands twice, anywhere, is refused: nobody can tell which one is meant, and a row
would go to whoever the other one names."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.adapters.sources import Source
from flows.adapters.sources.cells import MALFORMED
from s3t_core.config.data import DataConfig
from s3t_core.errors import DataError

TWICE = "more than once"


def _data(subject: str) -> DataConfig:
    return DataConfig.model_validate(
        {"subject": subject, "text": "remark", "label": "mood", "labels": ["glad", "sad"]}
    )


def _problems(path: Path, subject: str = "who") -> str:
    return " ".join(Source([str(path)], _data(subject)).problems())


def _table(**more: pa.Array) -> pa.Table:
    return pa.table({"remark": ["a", "b"], "mood": ["glad", "sad"], **more})


def test_a_struct_that_stands_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "people.parquet"
    one, other = (pa.array([{"who": f"{n} 1"}, {"who": f"{n} 2"}]) for n in ("anna", "bert"))
    once = _table(data=one)
    pq.write_table(once, file)
    assert TWICE not in _problems(file, "data.who")
    pq.write_table(once.append_column("data", other), file)
    assert f"'data.who' {TWICE}" in _problems(file, "data.who")


def _parquet(path: Path, **columns: list[str]) -> None:
    pq.write_table(pa.table(columns), path.with_suffix(".parquet"))


def _csv(path: Path, **columns: list[str]) -> None:
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    path.with_suffix(".csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("write", [_parquet, _csv])
def test_what_a_folder_and_its_file_both_say_is_refused(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    folder = tmp_path / "who=anna"
    folder.mkdir()
    texts = {"remark": ["a", "b"], "mood": ["glad", "sad"]}
    write(folder / "part", **texts)
    assert TWICE not in _problems(tmp_path)
    write(folder / "part", who=["bert", "bert"], **texts)
    assert f"'who' {TWICE}" in _problems(tmp_path)


def test_of_json_such_a_row_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "who=anna"
    folder.mkdir()
    rows = [{"remark": "a", "mood": "glad"}, {"remark": "b", "mood": "sad", "who": "bert"}]
    (folder / "part.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    source = Source([str(tmp_path)], _data("who"))
    assert not source.problems()
    first, second = [m for chunk in source.chunks(100) for m in chunk[MALFORMED]]
    assert not first and "its folder's name holds as well" in second


def test_two_folders_of_one_path_that_say_it_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "who=anna" / "who=bert"
    folder.mkdir(parents=True)
    _csv(folder / "part", remark=["a"], mood=["glad"])
    with pytest.raises(DataError, match="one twice in one path"):
        Source([str(tmp_path)], _data("who"))
