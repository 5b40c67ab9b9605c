"""Which files a source is: one, several, the parts in a folder or of a pattern, a folder of Hugging
Face `datasets`."""

import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from flows.adapters.sources.text import head_of, packing_of, readable, refuse_other_kinds
from s3t_core.errors import DataError

_KINDS = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".tab": "delimited",
    ".psv": "delimited",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_PACKED = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
}
_IMAGES = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
        ".bmp",
        ".webp",
        ".tif",
        ".tiff",
        ".heic",
    }
)
_OTHERS = {
    ".xlsx": "a spreadsheet: save the sheet as CSV",
    ".xls": "a spreadsheet: save the sheet as CSV",
    ".ods": "a spreadsheet: save the sheet as CSV",
    ".zip": "a zip archive: unpack it",
    ".tar": "an archive: unpack it",
    ".tgz": "an archive: unpack it",
    ".bz2": "bzip2: unpack it",
    ".xz": "xz: unpack it",
    ".pkl": "a Python pickle, which is never read: write it as Parquet",
    ".pickle": "a Python pickle, which is never read: write it as Parquet",
    ".txt": "text, which may be a table or not: give a table the ending .csv, or .tsv if tabs "
    "separate it",
}
_ENDINGS = f"{', '.join(list(_KINDS)[:-1])} or {list(_KINDS)[-1]} (text also with .gz or .zst)"
_NO_FILE = (
    "expected a readable file or example:NAME as the source, got a path that is no file; check its "
    "spelling"
)
_DESCRIBING = frozenset(
    {
        "dataset_infos.json",
        "dataset_info.json",
        "state.json",
    }
)
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Part:
    """One file of a source. `ending`: of its name, without what it is packed with. `constants`:
    cells that its folders say (`kind=up/`). `notes`: what is to be told of it."""

    path: Path
    kind: str
    ending: str
    packing: str
    constants: dict[str, str | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def parts_of(sources: Sequence[str]) -> list[Part]:
    """The files that the sources name together, in order. Raises DataError."""
    parts = [part for source in sources for part in _parts(source)]
    distinct = {part.path.resolve() for part in parts}
    if len(distinct) < len(parts):
        raise DataError(
            "expected each file of the source once, got one twice; its rows would count twice"
        )
    return parts


def _parts(source: str) -> list[Part]:
    path = Path(source)
    with readable("a path to a file or a folder"):
        if path.is_dir():
            return _folder(path)
        if path.is_file():
            return [_part(path)]
    if "://" in source:
        raise DataError(
            "expected a file of this machine as the source, got "
            f"{source.partition('://')[0]}://...; download it first"
        )
    if path.exists():
        raise DataError(
            "expected a readable file as the source, got a device or a pipe; write it to a file "
            "first"
        )
    if glob.has_magic(source):
        found = [Path(p) for p in sorted(glob.glob(source, recursive=True)) if Path(p).is_file()]  # noqa: PTH207
        if not found:
            raise DataError(
                "expected files that fit the pattern, got no file that does; check its spelling"
            )
        return _of_one_kind([_part(p) for p in found])
    raise DataError(_NO_FILE)


def _folder(folder: Path) -> list[Part]:
    """The parts in a folder, by name; what programs lay beside them (`_SUCCESS`, `.crc`) is no
    part."""
    if (folder / "dataset_dict.json").is_file():
        with readable("a folder of Hugging Face datasets"):
            splits = json.loads((folder / "dataset_dict.json").read_bytes())["splits"]
        if len(splits) != 1:
            raise DataError(_several_splits([str(s) for s in splits], "FOLDER/{}"))
        return _folder(folder / str(splits[0]))
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return _saved(folder)
    files = sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and not any(n.startswith(("_", ".")) for n in p.relative_to(folder).parts)
    )
    known = [p for p in files if _kind_of(p)[0] and p.name not in _DESCRIBING]
    if not known:
        if any(p.suffix.lower() in _IMAGES for p in files):
            raise DataError(
                "expected a table as the source, got a folder of images, which are not supported "
                "as files: write a table in which a row's text is an image in base64, with its "
                "label and its person"
            )
        raise DataError(
            f"expected a folder with files in {_ENDINGS} as the source, got one with no file of "
            "these"
        )
    other = sorted(
        {
            p.suffix.lower()
            for p in files
            if p not in known and p.suffix.lower() in (*_OTHERS, *_IMAGES)
        }
    )
    if other:
        raise DataError(
            f"expected a folder of parts of one kind, got files in {', '.join(other)} beside them; "
            "name the parts by a pattern, as 'FOLDER/part-*.parquet'"
        )
    return _of_one_kind([_part(p, _constants(p.relative_to(folder).parts[:-1])) for p in known])


def _saved(folder: Path) -> list[Part]:
    """What `Dataset.save_to_disk` wrote: its state names the files in order."""
    with readable("a folder of Hugging Face datasets"):
        state = json.loads((folder / "state.json").read_bytes())
        names = [Path(str(each["filename"])).name for each in state["_data_files"]]
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise DataError(
            "expected a saved data set with its rows as they are, got one with a selection beside "
            "them; save it after flatten_indices()"
        )
    if missing := [n for n in names if not (folder / n).is_file()]:
        raise DataError(
            f"expected the {len(names)} files that the saved data set names, got none for "
            f"{len(missing)}"
        )
    return [Part(folder / n, "arrow", ".arrow", "") for n in names]


def _of_one_kind(parts: list[Part]) -> list[Part]:
    endings = sorted({p.ending for p in parts})
    if len({p.kind for p in parts}) > 1:
        raise DataError(
            f"expected parts of one kind, got files in {', '.join(endings)}: the same rows twice, "
            "maybe; name those that are meant by a pattern, as 'FOLDER/*.csv'"
        )
    splits = {m for p in parts if (m := _split_of(p.path.name))}
    if len(splits) > 1:
        raise DataError(_several_splits(sorted(splits), "'FOLDER/{}-*'"))
    return parts


def _split_of(name: str) -> str:
    """The split in a name such as train-00000-of-00001.parquet, "" in any other."""
    split, *rest = name.partition(".")[0].split("-")
    whole = len(rest) == 3 and rest[1] == "of" and rest[0].isdigit() and rest[2].isdigit()
    return split if whole else ""


def _several_splits(splits: list[str], how: str) -> str:
    if not splits:
        return "expected one data set, got a folder without one"
    return (
        f"expected one data set, got the splits {', '.join(splits)}; name what to learn from, as "
        f"{how.format(splits[0])}: what is held out is drawn by [data] held_out"
    )


def _constants(folders: tuple[str, ...]) -> dict[str, str | None]:
    """What the names of folders say, as Hive and Spark write partitions. Raises DataError where two
    of one path say it of one column."""
    pairs, found = 0, dict[str, str | None]()
    for folder in folders:
        name, equals, value = unquote(folder).partition("=")
        if equals:
            pairs += 1
            found[name] = None if value == _NO_VALUE else value
    if len(found) < pairs:
        raise DataError(
            "expected each column once in the names of folders, got one twice in one path: which "
            "one is meant? Name them apart in the source"
        )
    return found


def _kind_of(path: Path) -> tuple[str, str]:
    """The kind of a file by its name, "" for one that is not read, and its ending without that of
    the packing."""
    suffixes = [s.lower() for s in path.suffixes[-2:]]
    ending = suffixes[-1] if suffixes else ""
    if ending in _PACKED:
        ending = suffixes[-2] if len(suffixes) > 1 else ""
    return _KINDS.get(ending, ""), ending


def _part(path: Path, constants: dict[str, str | None] | None = None) -> Part:
    """A file by what its first bytes say where these say it for certain, else by its name."""
    if path.stat().st_size == 0:
        raise DataError("expected rows in the source, got an empty file")
    with readable("a source"):
        packing = packing_of(path)
        head = head_of(path, packing)
    kind, ending = _kind_of(path)
    notes = []
    named = _PACKED.get(path.suffix.lower(), "")
    if packing and not named:
        notes.append(f"packed with {packing}, whatever its name says")
    if named and packing != named:
        raise DataError(
            f"expected a file packed with {named}, as its ending {path.suffix} says, got one that "
            "is not; give it the ending of what it is"
        )
    if head.startswith(b"PAR1") and kind != "parquet":
        notes.append("Parquet, whatever its name says")
        kind = "parquet"
    if head.startswith(b"ARROW1\x00") and kind != "arrow":
        notes.append("Arrow, whatever its name says")
        kind = "arrow"
    if packing and kind in ("parquet", "arrow"):
        raise DataError(
            f"expected {kind.title()} files as they are, got one packed with {packing}; unpack it: "
            "they are packed inside"
        )
    if not kind:
        refuse_other_kinds(head)
        what = _OTHERS.get(path.suffix.lower(), "")
        raise DataError(
            f"expected a source ending in {_ENDINGS}, got {what or repr(ending or 'no ending')}"
        )
    return Part(
        path,
        kind,
        ending,
        packing,
        constants or {},
        tuple(notes),
    )


def notes_of(parts: Sequence[Part]) -> Iterator[str]:
    """What is to be told of the files, each sentence once."""
    yield from dict.fromkeys(f"the file is {note}" for part in parts for note in part.notes)
