"""What the residue scan of an erasure found: of which requests it is, and what is told of it."""

from collections.abc import Collection, Iterable

from s3t_core.erasure.needles import is_among, is_text_among
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.state import State
from s3t_core.errors import ResidueFound
from s3t_core.ports import NeedlesFound, ScanReport


def found_of(
    report: ScanReport,
    found: NeedlesFound,
    requests: Iterable[str],
) -> list[str]:
    """Those of the requests of which an id as given, or a text, is what was found. [] where rows
    were found: they are not there by chance, and somebody could train on them."""
    if report.rows_found:
        return []
    needles = report.needles_found
    texts_of = found.texts_of or {}
    return [
        r
        for r in requests
        if any(is_among(given, needles) for given in found.ids_of.get(r, ()))
        or any(is_text_among(text, needles) for text in texts_of.get(r, ()))
    ]


def refuse_residue(report: ScanReport) -> None:
    """Raises ResidueFound for anything left, and for a file that nobody can look into."""
    if report.residue:
        raise ResidueFound(render_residue(report))
    if report.undecodable:
        raise ResidueFound(_render_undecodable(report))


def is_of_nobody(
    request: str,
    plan: ErasurePlan,
) -> bool:
    """Whether the erasure found no row of whom an open request asks for, by an id or by a hash that
    is nobody's: nothing that it erases can have left that anywhere."""
    return not (plan.rows[request].known or plan.subjects.get(request))


def is_lost(
    found: NeedlesFound,
    plan: ErasurePlan,
    state: State,
) -> bool:
    """Whether something of what such a search needs is not there any more."""
    by_id = {r for r in plan.requests if state.requests[r].asked_by == "id"}
    lacks_texts = found.texts_of is None or len(found.texts) != plan.texts
    return lacks_texts or not by_id.isdisjoint(found.ids_lost)


def render_residue(report: ScanReport, requests: Collection[str] = ()) -> str:
    """What is told where something of the erased records was found: of these requests, whose rows
    are destroyed, or of nobody can say whom."""
    message = (
        f"expected nothing of the erased records to be left, got matches in {len(report.residue)} "
        f"file(s): {', '.join(report.residue[:5])}; no certificate was written"
    )
    if requests:
        message += (
            f" for {len(requests)} request(s), whose rows are destroyed "
            f"({', '.join(sorted(requests)[:5])}); everything else is carried out"
        )
    message += ". "
    if set(report.residue) <= set(report.written):
        return (
            message + "A running process is writing them: run `s3t erase` again when it has ended"
        )
    if any(path.startswith(".s3t/prefect/") for path in report.residue):
        message += "Prefect's own records, in .s3t/prefect, go with `s3t stop --forget`. "
    return message + "Remove what put it there, then run `s3t erase` again"


def _render_undecodable(report: ScanReport) -> str:
    """What is told where the scan could not look into everything."""
    message = (
        f"expected to search every file to its end, got {len(report.undecodable)} that cannot be "
        f"decoded: {', '.join(report.undecodable[:5])}; nobody can say what is in them, so no "
        "certificate was written. "
    )
    if set(report.undecodable) <= set(report.written):
        return (
            message + "A running process is writing them: run `s3t erase` again when it has ended"
        )
    return message + (
        "Remove what is broken (a data object comes back with the erase run after that), or take "
        "what is yours out of the system's directories, then run `s3t erase` again"
    )


def render_waiting(requests: Collection[str]) -> str:
    """What is told of requests of which nothing was found, of people of whom another is."""
    return (
        f"expected nothing of a person to be left, got {len(requests)} request(s) whose person "
        f"another request asks for, which is found somewhere still "
        f"({', '.join(sorted(requests)[:5])}): their rows are destroyed, and they are certified "
        "once that one is"
    )


def render_still_left(
    report: ScanReport,
    requests: Collection[str],
) -> str:
    """What is told where nobody can search any more for what was found."""
    return (
        "expected the files in which something of the erased was found to be gone, or others, got "
        f"{', '.join(report.found_again[:5])} as it was, and what to search it for is lost "
        f"({', '.join(sorted(requests)[:5])}): remove it, then run `s3t erase` again"
    )


def render_perhaps(requests: Collection[str]) -> str:
    """What is told of requests by a hash that nobody in the data has, while somebody waits whose
    rows are destroyed: nobody can say whether it is theirs."""
    return (
        f"expected to know whom {len(requests)} request(s) by a hash mean that nobody in the data "
        f"has ({', '.join(sorted(requests)[:5])}), got somebody whose rows are destroyed and who "
        "is found somewhere still: it may be the same person. They are carried out once nobody "
        "waits so"
    )
