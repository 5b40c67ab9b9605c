"""Files of ids as a privacy team has them: exports with a mark, a header, quotes, blanks (edges
E4)."""

from pathlib import Path

import pytest

from flows.use_cases.id_files import read_ids
from s3t_core.errors import DataError, UsageError

IDS = ["ann.3@example.org", "ann.4@example.org"]


@pytest.mark.parametrize(
    "content",
    [
        b"ann.3@example.org\nann.4@example.org",
        b"ann.3@example.org\r\nann.4@example.org\r\n",
        b"\xef\xbb\xbfann.3@example.org\n\n \nann.4@example.org\nann.3@example.org\n",
        b'"ann.3@example.org"\r\n"ann.4@example.org"\r\n',
        b"email\nann.3@example.org\nann.4@example.org\n",
        b'\xef\xbb\xbfemail\r\nann.3@example.org\r\n\r\n"ann.4@example.org"\r\n',
        b" E-Mail ,name\nann.3@example.org,Ann\nann.4@example.org,Ann\n".replace(
            b"E-Mail", b"Email"
        ),
        b'name;email\n"Ann; the third";ann.3@example.org\n"Ann\nthe fourth";ann.4@example.org\n',
        b"name\temail\nAnn\tann.3@example.org\n\t\nAnn\tann.4@example.org\n",
        "email\nann.3@example.org\nann.4@example.org\n".encode("utf-16"),
        "\nemail\nann.3@example.org\nann.4@example.org".encode("utf-16-be").join(
            [b"\xfe\xff", b""]
        ),
    ],
)
def test_an_export_is_read_as_the_people_it_names(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ids.csv").write_bytes(content)
    found = read_ids(str(tmp_path / "ids.csv"), subject="email")
    assert found.ids == IDS
    assert "ann" not in found.in_words()


def test_a_column_is_read_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("email,customer\na@x.org,1\nb@x.org,2\nb@x.org,2\n,\n")
    found = read_ids(str(tmp_path / "ids.csv"), "customer", "email")
    assert (found.ids, found.column, found.repeated, found.blank) == (["1", "2"], "customer", 1, 1)
    assert found.in_words() == "2 id(s) read from column 'customer' (1 given again, 1 blank)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("email\na@x.org\n", "expected a column 'customer'"),
        ("email,customer\na@x.org,1\nb,c\nd,", "ok"),
        ("email,x,customer\na@x.org,1\n", "3 cell.* on line 2"),
        ('customer\n"a\n', "that is none"),
        ("", "expected a column"),
    ],
)
def test_a_table_without_the_column_is_refused_and_says_where(
    tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "ids.csv").write_text(content)
    if said == "ok":
        assert read_ids(str(tmp_path / "ids.csv"), "customer").ids == ["1", "c"]
        return
    with pytest.raises(UsageError, match=said) as refused:
        read_ids(str(tmp_path / "ids.csv"), "customer")
    assert "a@x.org" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("\na@x.org\n\nb@x.org\na@x.org\n", [2, 4]),
        ("email\na@x.org\n\nb@x.org\n", [2, 4]),
        ('sep=,\nemail,name\na@x.org,"A\nB"\n"b@x.org",\na@x.org,\n', [3, 5]),
    ],
)
def test_each_id_is_told_by_the_line_where_it_stands_first(
    tmp_path: Path, content: str, lines: list[int]
) -> None:
    (tmp_path / "ids.csv").write_text(content)
    assert read_ids(str(tmp_path / "ids.csv"), subject="email").lines == dict(
        zip(["a@x.org", "b@x.org"], lines, strict=True)
    )


def test_what_may_belong_to_an_id_stays(tmp_path: Path) -> None:
    content = '  two spaces  \nwith, comma\nwith "quotes" inside\nline\u2028separator\n'
    (tmp_path / "ids.txt").write_text(content)
    assert read_ids(str(tmp_path / "ids.txt"), subject="email").ids == content.removesuffix(
        "\n"
    ).split("\n")


def test_nothing_given_is_no_blank_line(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("")
    found = read_ids(str(tmp_path / "ids.txt"), subject="email")
    assert (found.ids, found.blank) == ([], 0)


@pytest.mark.parametrize(
    "content",
    [
        "email\nDoe, Ann\n",
        "name,email\nDoe, Ann,ann@x.org\n",
        "email,name\nDoe, Ann,Ann\n",
        "email;name\nDoe;Ann;Ann\n",
        "email,name\nann@x.org,Ann,bob@x.org\n",
        "email|name\nDoe\n",
        "email\tname\nDoe\tAnn\t\n",
        "\n,\nemail\nDoe,\n",
        "email,email\nDoe,Ann\n",
        "EMAIL,Email\nDoe,Ann\n",
        " email,email \nDoe,Ann\n",
        "email;a,email\nDoe;Ann,Doe\n",
        'email,"a\nb",email\nDoe,x,Ann\n',
    ],
)
def test_a_cell_that_may_be_another_person_s_is_refused(tmp_path: Path, content: str) -> None:
    """Shifted by a delimiter without quotes, or under a name that stands twice."""
    (tmp_path / "ids.csv").write_text(content)
    with pytest.raises(UsageError, match="nothing was accepted") as refused:
        read_ids(str(tmp_path / "ids.csv"), subject="email")
    assert not any(name in str(refused.value) for name in ("Doe", "Ann", "ann@"))


@pytest.mark.parametrize(
    "content",
    [
        "EMAIL,email\nDoe,ann\n",
        "Email ,name, email\nDoe,Bob,ann\n",
        " email,name,EMAIL\nann,Bob,Doe\n",
        'name,email\n"Doe, Ann",ann\n',
        "\n , \nname,email\n,\n , \n \n,,,\nDoe,ann\n",
        "sep=;\r\nname;email\r\nDoe;ann\r\n",
        '"first\nname",email\nDoe,ann\n',
        "email;first,last\nann;Doe,Bob\n",
        'name,email\r\n"Doe\rBob",ann\r\n',
    ],
)
def test_the_very_name_goes_before_one_in_other_letters(tmp_path: Path, content: str) -> None:
    (tmp_path / "ids.csv").write_text(content, newline="")
    assert read_ids(str(tmp_path / "ids.csv"), subject="email").ids == ["ann"]


@pytest.mark.parametrize("column", ["", "email"])
@pytest.mark.parametrize(
    "content",
    [
        b"email\rann\rbob\r",
        b"ann\rbob\r",
        b"ann\rbob",
        b"ann\rbob\r\n",
        b"ann\nbob\rann\n",
        b"email\nbob\rann\n",
        b"email\rann\n",
        b"email,x\rann,y\rbob,z",
        b"a" * 200_000 + b"\nbob\n",
        b"email," + b"a" * 200_000 + b"\nbob,x\n",
        b"ann\n" + b"a" * 200_000,
        b"email\n" + b"a" * 200_000,
        b'email\n"ann',
    ],
)
def test_a_file_with_other_line_ends_is_refused_with_a_sentence(
    tmp_path: Path, content: bytes, column: str
) -> None:
    (tmp_path / "ids.csv").write_bytes(content)
    with pytest.raises(UsageError, match="expected") as refused:
        read_ids(str(tmp_path / "ids.csv"), column, "email")
    assert not any(name in str(refused.value) for name in ("ann", "bob", "aaa"))


def test_utf_32_with_its_mark_and_quotes_that_are_part_of_an_id(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes('"ann" and "bob"\n"bob"\n"a\rb"\n'.encode("utf-32"))
    assert read_ids(str(tmp_path / "ids.txt"), subject="email").ids == [
        '"ann" and "bob"',
        "bob",
        "a\rb",
    ]


def test_ids_in_utf_16_that_are_out_of_step_are_refused(tmp_path: Path) -> None:
    ids = "".join(f"ann.{n}@example.org\r\n" for n in range(9)).encode("utf-16")
    path = tmp_path / "ids.txt"
    path.write_bytes(ids[:80] + b"x" + ids[80:200] + b"x" + ids[200:])
    with pytest.raises(DataError, match="out of step"):
        read_ids(str(path))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_utf_16_without_a_mark_is_refused_and_not_quoted(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "ids").write_bytes("email\nann.3@example.org\n".encode(encoding))
    with pytest.raises(UsageError, match="save the file as UTF-8") as refused:
        read_ids(str(tmp_path / "ids"))
    assert "ann" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        "Name;Mail\nX;anna@x.org\n",
        "anna@x.org,1\nbob@x.org,2\n",
        "a\tb\nc\td\n\n",
        "a|b\r\nc|d\r\n",
        'Name;Mail\n"Doe, Ann";a@x.org\n',
        '"Doe, Ann"\nBob,b@x.org\n',
    ],
)
def test_lines_that_look_like_a_table_are_not_taken_for_ids(tmp_path: Path, content: str) -> None:
    """Its header and its rows would be requests for people whom nobody knows, and the real ones
    would stay."""
    (tmp_path / "ids.csv").write_text(content)
    with pytest.raises(
        UsageError,
        match=r"by which the data names its people, got 2 lines of 2 cells each.*--column",
    ):
        read_ids(str(tmp_path / "ids.csv"), subject="E-Mail")


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        ('"Doe, Ann"\n"Roe, Bob"\n', ["Doe, Ann", "Roe, Bob"]),
        ("Doe, Ann\n", ["Doe, Ann"]),
        ("Doe, Ann\nbob\n", ["Doe, Ann", "bob"]),
        ("anna\nbob\n", ["anna", "bob"]),
    ],
)
def test_ids_with_a_delimiter_are_taken_where_it_is_clear_that_they_are_ids(
    tmp_path: Path, content: str, ids: list[str]
) -> None:
    (tmp_path / "ids.txt").write_text(content)
    assert read_ids(str(tmp_path / "ids.txt"), subject="E-Mail").ids == ids
