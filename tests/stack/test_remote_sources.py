"""Sources where users have them: a bucket of a real server, and a real database."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pyarrow.parquet as pq
import pytest

from flows.adapters.s3 import S3Blobs
from flows.adapters.sources.remote import brought
from flows.prefect_flows.erase import erase
from flows.use_cases.ingesting import run_ingest
from flows.use_cases.taking import take_requests
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from infra.stack import Stack
from s3t_core.errors import DataError, StorageError
from s3t_core.identity import id_text
from tests.flows.conftest import people, tiny_config, write_csv
from tests.stack.conftest import KEY

_COUNT = itertools.count()
QUERY = "SELECT id, who, what, kind FROM reviews ORDER BY id;"
ODD = 'a "quoted" word, a comma,\nand a line'


@pytest.fixture
def make_place(tmp_path: Path) -> Callable[..., Workspace]:
    """Workspaces on this machine; only their sources lie elsewhere."""

    def make(name: str = "w", **data: Any) -> Workspace:
        given = {"data": data} if data else {}
        config = tiny_config(tmp_path / "no backbone", **given)
        return Workspace(create_workspace(tmp_path / name, config, KEY).root)

    return make


def _ingested(place: Workspace, *sources: str) -> tuple[int, int, int]:
    found = run_ingest(place, list(sources), False, 20_000, False)
    assert not list(place.state_dir.rglob("source-*"))
    return found.records, found.held_out, found.subjects


def test_objects_of_a_bucket_are_ingested_one_by_one_and_by_their_prefix(
    stack: Stack, make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    first, second = people()[:20], people()[20:]
    url = f"s3://s3t/sources-{os.getpid()}-{next(_COUNT)}/day"
    bucket, files = S3Blobs(url), []
    for name, rows in (("one.csv", first), ("two.csv", second)):
        files.append(write_csv(tmp_path / name, rows))
        bucket.write(name, files[-1].read_bytes())
    wanted = _ingested(make_place("here"), *map(str, files))
    assert _ingested(make_place("each"), f"{url}/one.csv", f"{url}/two.csv") == wanted
    assert _ingested(make_place("prefix"), f"{url}/") == wanted
    assert _ingested(make_place("folder"), url) == wanted
    with pytest.raises(DataError, match="got none"):
        _ingested(make_place("none"), f"{url}/three.csv")


@pytest.fixture
def reviews(stack: Stack, database: str) -> str:
    """The URL of a database with a table of reviews, without its password."""
    rows = [{**row, "id": str(n)} for n, row in enumerate(people())]
    rows[3]["what"] = ODD
    with psycopg.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE reviews (id bigint, who text, what text, kind text)")
        cursor.executemany("INSERT INTO reviews VALUES (%(id)s, %(who)s, %(what)s, %(kind)s)", rows)
    return database


def test_what_a_query_answers_is_ingested_as_the_same_rows_of_a_file(
    reviews: str, make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    rows = [{**row, "id": str(n)} for n, row in enumerate(people())]
    rows[3]["what"] = ODD
    file = str(write_csv(tmp_path / "people.csv", rows))
    wanted = make_place("here")
    counts = _ingested(wanted, file)
    found = make_place("there", query=QUERY)
    assert _ingested(found, reviews) == counts
    digests = [
        sorted(v.digest for v in p.ledger.state().dataset.files())  # type: ignore[union-attr]
        for p in (wanted, found)
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("SELECT nobody FROM reviews", DataError),
        ("INSERT INTO reviews VALUES (99, 'a', 'b', 'c') RETURNING *", DataError),
        ("SELECT 1; DROP TABLE reviews", DataError),
        (
            "SELECT * FROM reviews) TO STDOUT; COMMIT; DELETE FROM reviews; COPY (SELECT 1",
            DataError,
        ),
        ("COMMIT; DELETE FROM reviews; SELECT 1", DataError),
        ("WITH gone AS (DELETE FROM reviews RETURNING *) SELECT * FROM gone", DataError),
        ("SELECT 'infinity'::date AS id, who, what, kind FROM reviews", DataError),
        ("SELECT 1e100::numeric AS id, who, what, kind FROM reviews", DataError),
        ("SELECT 1 / 0", DataError),
    ],
)
def test_a_query_that_does_not_read_changes_nothing(
    reviews: str, make_place: Callable[..., Workspace], query: str, kind: type[Exception]
) -> None:
    place = make_place(query=query)
    with pytest.raises(kind, match="nothing was changed"):
        _ingested(place, reviews)
    with psycopg.connect(reviews) as connection:
        (count,) = connection.execute("SELECT count(*) FROM reviews").fetchone() or (0,)
    assert count == len(people()) and place.ledger.state().dataset is None


def test_a_database_that_lets_nobody_in_is_named_without_its_address(
    reviews: str, make_place: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "another")
    monkeypatch.delenv("PGPASSFILE", raising=False)
    name = urlsplit(reviews)
    elsewhere = f"postgresql://{name.username}@{name.hostname}:{name.port}{name.path}"
    with pytest.raises(StorageError, match="nothing was changed") as told:
        _ingested(make_place(query=QUERY), elsewhere)
    assert name.path not in str(told.value)


ODDLY = {
    "PGTZ": "Asia/Kathmandu",
    "PGDATESTYLE": "German",
    "PGOPTIONS": "-c bytea_output=escape -c extra_float_digits=-10 -c IntervalStyle=iso_8601",
}
TYPED = """SELECT id::text || ' ' || id AS id, who, what, kind,
    timestamptz '2026-03-29 00:30:00.5+00' AS "at",
    timestamp '2026-03-29 00:30:00' AS wall, date '2026-02-03' AS day, 1018::numeric AS whole,
    'ab'::bytea AS raw, 0.1::float8 + 0.2 AS part, interval '90 minutes' AS span, true AS yes,
    'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid AS mark, ARRAY['a', 'b'] AS tags
    FROM reviews -- to its end"""


def test_a_value_is_spelt_so_whatever_the_shell_or_the_database_writes_it_by(
    reviews: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that one environment spells otherwise than the next is another person's: whoever was
    erased would come back."""
    read = []
    for number, environment in enumerate(({}, ODDLY)):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        if environment:
            with psycopg.connect(reviews, autocommit=True) as connection:
                name = urlsplit(reviews).path.strip("/")
                connection.execute(f"ALTER DATABASE \"{name}\" SET TimeZone = 'Asia/Tokyo'")
        with brought([reviews], tmp_path / str(number), TYPED) as found:
            read.append(pq.read_table(found[0]).slice(0, 1).to_pylist()[0])
    assert read[0] == read[1]
    assert {k: id_text(read[0][k]) for k in ("at", "wall", "day", "whole", "mark")} == {
        "at": "2026-03-29T00:30:00.500000Z",
        "wall": "2026-03-29T00:30:00",
        "day": "2026-02-03",
        "whole": "1018",
        "mark": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    }
    assert read[0]["raw"] == b"ab" and read[0]["yes"] is True and read[0]["tags"] == ["a", "b"]


def test_who_was_erased_by_a_time_stays_out_in_another_time_zone(
    reviews: str, make_place: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    query = """SELECT timestamptz '2026-03-29 00:00:00+00' + id * interval '1 hour' AS id,
        who, what, kind FROM reviews"""
    place = make_place(query=query)
    monkeypatch.setenv("PGTZ", "UTC")
    counts = _ingested(place, reviews)
    take_requests(place, [people()[5]["who"]], record="2026-03-29T05:00:00Z")
    assert erase(str(place.root))["certificates"]
    monkeypatch.setenv("PGTZ", "Europe/Berlin")
    found = run_ingest(place, [reviews], False, 20_000, False)
    assert found.suppressed == 1 and found.records + found.held_out == sum(counts[:2]) - 1


def test_a_query_means_the_same_whatever_shell_database_and_role_say(
    reviews: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it reads, and from which server."""
    name = urlsplit(reviews).path.strip("/")
    query = """SELECT ('2026-01-01 00:00 IST')::timestamptz AS "at",
        'reviews'::regclass::text AS it, (1 = null) IS NULL AS unknown, count(*) AS rows
        FROM reviews"""
    read = []
    for number, oddly in enumerate((False, True)):
        if oddly:
            monkeypatch.setenv(
                "PGOPTIONS", "-c timezone_abbreviations=India -c transform_null_equals=on"
            )
            monkeypatch.setenv("PGHOSTADDR", "127.0.0.9")
            with psycopg.connect(reviews, autocommit=True, hostaddr="") as connection:
                connection.execute("CREATE SCHEMA old")
                connection.execute(
                    "CREATE TABLE old.reviews AS SELECT * FROM public.reviews LIMIT 1"
                )
                connection.execute(f'ALTER DATABASE "{name}" SET search_path = old, public')
        with brought([reviews], tmp_path / str(number), query) as found:
            read.append(pq.read_table(found[0]).to_pylist())
    assert read[0] == read[1] and read[0][0]["rows"] == len(people())


def test_a_query_runs_no_program(
    reviews: str, make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    """Though the account might."""
    ran = tmp_path / "ran"
    place = make_place(query=f"COPY (SELECT 1) TO PROGRAM 'touch {ran}'")
    name = urlsplit(reviews)
    owner = reviews.replace(f"//{name.username}@", "//postgres@") if name.username else reviews
    with pytest.raises(DataError, match="nothing was changed"):
        _ingested(place, owner)
    assert not ran.exists()
