"""Files as people have them, of invented people: `python -m tests.cases.build` writes them anew
beside this file.

`tests/unit/adapters/test_cases.py` says what each of them must be read as, or which sentence it
must be refused with.
"""

import csv
import gzip
import io
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent
_WORDS = [
    "harbour",
    "lantern",
    "meadow",
    "gravel",
    "thimble",
    "orchard",
    "saddle",
    "copper",
    "ribbon",
    "kettle",
]
_PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452")


def people(rows: int = 12) -> list[dict[str, str]]:
    """Rows of six invented people, two labels."""
    return [
        {
            "entry": f"e{n:02d}",
            "member": f"member-{n % 6}",
            "remark": f"{_WORDS[n % 10]} and {_WORDS[(3 * n + 1) % 10]} by the "
            f"{_WORDS[(7 * n + 4) % 10]}",
            "mood": ["glad", "sad"][n % 2],
        }
        for n in range(rows)
    ]


def as_csv(
    rows: list[dict[str, Any]],
    delimiter: str = ",",
    end: str = "\n",
    quoting: Literal[0, 1] = csv.QUOTE_MINIMAL,
) -> str:
    """The rows with a header."""
    file = io.StringIO()
    writer = csv.DictWriter(
        file, list(rows[0]), delimiter=delimiter, lineterminator=end, quoting=quoting
    )
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_lines(rows: list[dict[str, Any]]) -> str:
    """An object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def changed(**cells: Any) -> list[dict[str, Any]]:
    """The rows with what a function of the row's number says instead in some columns."""
    return [row | {name: cell(n) for name, cell in cells.items()} for n, row in enumerate(people())]


def texts() -> dict[str, str | bytes]:
    """The files that are text, or packed text, by name."""
    plain, lines = as_csv(people()), plain_lines().splitlines()
    found: dict[str, str | bytes] = {
        "chat.jsonl": as_lines(
            [
                {
                    "member": r["member"],
                    "mood": r["mood"],
                    "messages": [
                        {"role": "user", "content": r["remark"]},
                        {"role": "assistant", "content": "noted"},
                    ],
                }
                for r in people()
            ]
        ),
        "duplicate_header.csv": re.sub(
            r"(member-\d,)", r"\1an old remark,", plain.replace("remark", "remark,remark", 1)
        ),
        "parts/a.csv": as_csv(people()[:5], end="\r\n"),
        "parts/b.csv": as_csv(people()[5:], end="\r\n"),
        "packed.csv.gz": gzip.compress(plain.encode(), mtime=0),
        "packed.csv": gzip.compress(plain.encode(), mtime=0),
        "header_spaces.csv": plain.replace(",", ", ", 3),
        "array.json": json.dumps(people(), indent=1),
        "array.jsonl": json.dumps(people()),
        "labels_case_space.csv": as_csv(
            changed(mood=lambda n: ["glad", "Glad", "sad ", " sad"][n % 4])
        ),
        "labels_float.csv": as_csv(changed(mood=lambda n: ["0.0", "1.0"][n % 2])),
        "multilabel.jsonl": as_lines(changed(mood=lambda n: ["glad", "sad"][: 1 + n % 2])),
        "nested.jsonl": as_lines(
            [
                {"by": {"id": r["member"]}, "data": {"text": r["remark"]}, "mood": r["mood"]}
                for r in people()
            ]
        ),
        "no_header.csv": plain.partition("\n")[2],
        "semicolon.csv": as_csv(people(), ";", "\r\n"),
        "tab.tsv": as_csv(people(), "\t", "\r\n"),
        "two_people.csv": as_csv(changed(member=lambda n: f"member-{n % 2}")),
        "unclosed_quote.csv": plain.replace("member-3,", 'member-3,"', 1),
        "utf16.csv": as_csv(people(), end="\r\n").encode("utf-16"),
        "utf16.jsonl": plain_lines().encode("utf-16"),
        "latin1_header.csv": plain.replace("mood", "gemüt", 1).encode("latin-1"),
        "latin1_cells.csv": as_csv(
            changed(remark=lambda n: "schön" if n % 4 == 0 else "kalt")
        ).encode("latin-1"),
        "commas.jsonl": "".join(line + ",\n" for line in lines),
        "indented.json": "\n".join(json.dumps(row, indent=2) for row in people()),
    }
    return found


def plain_lines() -> str:
    """The rows as JSON Lines."""
    return as_lines(people())


def write(folder: Path) -> None:
    """Every file, under `folder`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, content in texts().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for person in ("member-0", "member-1"):
        (folder / "images" / person).mkdir(parents=True, exist_ok=True)
        (folder / "images" / person / "a.png").write_bytes(_PNG)
    rows = people()
    tenths = [Decimal("0.00"), Decimal("1.00")]
    table = pa.Table.from_pylist(changed(mood=lambda n: tenths[n % 2]))
    pq.write_table(table, folder / "decimal_labels.parquet")
    (folder / "parts.parquet").mkdir(exist_ok=True)
    for number in range(3):
        pq.write_table(
            pa.Table.from_pylist(rows[4 * number : 4 * number + 4]),
            folder / "parts.parquet" / f"part-{number}.parquet",
        )
    classes = pa.Table.from_pylist(changed(mood=lambda n: n % 2)).replace_schema_metadata(
        {
            "huggingface": json.dumps(
                {"info": {"features": {"mood": {"names": ["glad", "sad"], "_type": "ClassLabel"}}}}
            )
        }
    )
    pq.write_table(classes, folder / "classes-00000-of-00001.parquet")
    saved = folder / "saved"
    saved.mkdir(exist_ok=True)
    with (
        pa.OSFile(str(saved / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, classes.schema) as stream,
    ):
        stream.write_table(classes)
    (saved / "dataset_info.json").write_text("{}\n")
    (saved / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}) + "\n"
    )
    with (
        pa.OSFile(str(folder / "packed.csv.zst"), "wb") as sink,
        pa.CompressedOutputStream(sink, "zstd") as out,
    ):
        out.write(as_csv(rows).encode())


if __name__ == "__main__":
    write(HERE)
