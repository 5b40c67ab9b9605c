"""What the command line says of requests and of their erasure: in words and counts. An id is said
only to who gave it on the command line."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, get_args

from s3t_core.erasure.outcome import ErasureOutcome, render_outcome
from s3t_core.erasure.vocabulary import ClosingKind

if TYPE_CHECKING:
    from flows.use_cases.documents import (
        Certified,
        ErasureDocument,
        HeldDocument,
        PersonFound,
        RequestsDocument,
        Step,
        TakenDocument,
    )

_SHOWN = 20
_RETRAINS = {
    "no": "none",
    "done": "done: the budget was spent, and what was missing is trained and serves",
    "first": "done before the cut-over, because the requests would have spent the budget",
    "triggered": "the full-retrain deployment has been triggered",
    "running": "another process is at it",
    "failed": "failed; what is left keeps serving, and the next `s3t erase` tries again",
}
_HEALED = {
    "stages": "{} stage(s)",
    "objects": "{} data object(s)",
    "quarantined": "{} quarantined row(s)",
    "registry": "the registry",
    "data": "the data directory",
}


def render_taken(d: "TakenDocument") -> list[str]:
    """Which request each is in, who is in the data, and how many were accepted."""
    ended = (*get_args(ClosingKind), *get_args(ErasureOutcome))
    stands: dict[str, list[str]] = {}
    for each in d["found"]:
        if each["line"]:
            stands.setdefault(each["request"], []).append(str(each["line"]))
    lines = []
    for r in d["requests"]:
        at = stands.get(r["id"], [])
        where = f"  line{'s' if len(at) > 1 else ''} {', '.join(at)}" if at else ""
        lines.append(
            f"{r['id']}{where}  "
            + (
                f"closed before: {r['state']}"
                if r["state"] in ended
                else f"due {r['due']}"
                + (", asked for before: the same request" if r["id"] in d["open_before"] else "")
            )
        )
    standing = [r for r in d["requests"] if r["state"] not in ended]
    again = len(d["open_before"])
    accepted = f"{len(standing) - again} request(s) accepted" + (
        f", {again} open since before" if again else ""
    )
    return [
        *lines,
        *_render_found(d["found"]),
        f"{accepted}." + (" Next: `s3t erase`." if standing else ""),
    ]


def _render_found(found: "list[PersonFound]") -> list[str]:
    """Who of those that were asked for is in the data, and who is not. An id that was given on the
    command line stands there already; one of a file is told by its line."""
    kinds = {
        kind: [f for f in found if f["found"] == kind]
        for kind in ("in the data", "nearly", "nobody", "not told")
    }
    here = kinds["in the data"]
    erased = [(f, e) for f in [*kinds["nobody"], *kinds["nearly"]] if (e := f["erased"])]
    lines = _render_here(here, len(found) - len(kinds["not told"]))
    lines += _render_nearly(kinds["nearly"])
    lines += _some(
        [
            f"  {_who(f)}: already erased by {e['request']} on "
            f"{e['time'][:10]}; nothing new is there"
            for f, e in erased
        ],
        "that were erased before",
    )
    nobody = [f for f in kinds["nobody"] if not f["erased"]]
    lines += _some(
        [
            f"  nobody with this hash is in the data: {f['request']}"
            if f["hashed"]
            else f"  not in the data: {_who(f)}"
            for f in nobody
        ],
        "that are not in the data",
    )
    if any(not f["hashed"] for f in nobody):
        lines.append("  Nothing will be found for them: see that they are spelt as in the source.")
    if any(f["hashed"] for f in nobody):
        lines.append("  Who has an id with the hash when the request is carried out is meant too.")
    return [
        *lines,
        *dict.fromkeys(
            f"  Whether they are in the data is not told: {f['why']}." for f in kinds["not told"]
        ),
    ]


def _render_others(found: "PersonFound") -> str:
    others = found["others"]
    named = f": {_named(found)}" if found["spellings"] else ""
    if others > 1:
        stays = f"{others} other spellings of it are there too and stay"
    else:
        stays = f"{others} other spelling of it is there too and stays"
    return f"  {_who(found)}: {stays}{named}"


def _render_here(here: "list[PersonFound]", of: int) -> list[str]:
    """Who is there, and who else is under another spelling, and stays."""
    hashed = [
        f"  somebody with this hash is in the data: {f['request']}" for f in here if f["hashed"]
    ]
    lines = _some(hashed, "of whom somebody is in the data")
    if not hashed and here:
        lines.append(f"  in the data: {len(here)} of {of}")
    more = [_render_others(f) for f in here if f["others"]]
    lines += _some(more, "with other spellings that stay")
    if more:
        lines.append(
            "  If that is the same person, ask for it as well, or set [data] id_rule "
            "(docs/your-data.md)."
        )
    return lines + list(
        dict.fromkeys(
            f"  Whether other spellings of them are there is not told: {f['why']}."
            for f in here
            if f["why"]
        )
    )


def _render_nearly(nearly: "list[PersonFound]") -> list[str]:
    lines = _some(
        [
            f"  not in the data: {_who(f)}, but "
            + (
                f"{_named(f)} {'is' if f['others'] == 1 else 'are'} there"
                if f["spellings"]
                else "somebody is whose id differs only in letter case, blanks, Unicode form or .0"
            )
            for f in nearly
        ],
        "that are not in the data, but nearly",
    )
    if nearly:
        asked = " ".join(dict.fromkeys(f["request"] for f in nearly[:_SHOWN]))
        withdraw = (
            f"`s3t withdraw {asked}`"
            if " " not in asked
            else f"`s3t withdraw REQUEST` for each of {asked}"
        )
        lines.append(
            f"  Withdraw what is misspelt, {withdraw}, and ask with the spelling in the data, or "
            "set [data] id_rule (docs/your-data.md)."
        )
    return lines


def render_held(d: "HeldDocument") -> list[str]:
    """Another spelling of the id is another person's, as far as anybody can say: who is meant may
    stay without it."""
    lines = [f"Held. {d['waiting']} open request(s) wait; their deadlines run on."]
    for found in d["found"]:
        if found["found"] == "not told":
            lines.append(f"  Whether they are in the data is not told: {found['why']}.")
        elif found["found"] != "in the data" and not found["erased"]:
            near = (
                f", but nearly so: {_named(found)}"
                if found["spellings"]
                else (f", but {found['others']} nearly so" if found["found"] == "nearly" else "")
            )
            lines += [
                f"  not in the data as {'it is' if found['line'] else _who(found) + ' is'} "
                f"spelt{near}",
                "  The hold stops erasures of that spelling alone; hold the one in the data as "
                "well.",
            ]
        elif found["others"]:
            lines.append(
                f"  {found['others']} other spelling(s) of it are there too, and are not held"
                + (f": {_named(found)}" if found["spellings"] else "")
            )
    return lines


def render_requests(d: "RequestsDocument") -> list[str]:
    """A line for each: state, due time, days that are left."""
    if not d["requests"]:
        return ["No request to list."]
    return [
        f"{r['id']}  {render_outcome(r['state'], r['rows']):<28}  due {r['due']}"
        + (
            ""
            if r["days_left"] is None
            else f"  {r['days_left']:.1f} days left"
            if r["days_left"] >= 0
            else f"  LATE by {-r['days_left']:.1f} days"
        )
        + (f"  {render_others(r['others'])}" if r["others"] else "")
        for r in d["requests"]
    ]


def render_erasure(d: "ErasureDocument") -> list[str]:
    """What was carried out, what stays beside it, and what follows."""
    text = _RETRAINS[d["retrain"]] + (
        f" ({d['problem']})" if d["problem"] and d["retrain"] != "failed" else ""
    )
    waiting = render_healed(d["healed"]) + [
        f"  not carried out: {w['request']}, {w['state']}, due {w['due']}" for w in d["waiting"]
    ]
    nobody = any(
        c["outcome"] == "nothing found" and not c["others"] and not c["erased_before"]
        for c in d["certificates"]
    )
    if not d["certificates"]:
        none = (
            "could be carried out"
            if any(w["state"] in ("deferred", "uncertified") for w in d["waiting"])
            else "was pending"
        )
        return [f"Nothing {none}. Full retrain: {text}.", *waiting, _render_next(d["next"])]
    return [
        f"{len(d['certificates'])} request(s) carried out in {d['seconds']:.0f} s: "
        f"{d['deactivated']} stages deactivated and destroyed; version {d['version'] or 'none'} "
        f"serves. Full retrain: {text}.",
        *(f"  {render_outcome(c['outcome'], c['rows'])}: {c['path']}" for c in d["certificates"]),
        *render_beside(d["certificates"]),
        *(
            [
                "  Nothing found: the data held no row of that id, now or in an earlier version; "
                "see that it is spelt as in the source."
            ]
            if nobody
            else []
        ),
        *(
            [
                f"  The ids of {d['ids_lost']} request(s) could not be searched for: they were "
                "asked for by a hash, or lost by a restore. Their rows were found by digest."
            ]
            if d["ids_lost"]
            else []
        ),
        *(f"  a copy outside the system, yours to destroy: {name}" for name in d["found_outside"]),
        *(
            f"  a checkpoint that is not where it was put, yours to replace: {name} (`s3t status`)"
            for name in d.get("stale_exports", [])
        ),
        *waiting,
        "Next: `s3t verify CERTIFICATE --key PUBLIC_KEY`, `s3t status`.",
        _render_next(d["next"]),
    ]


def render_beside(certificates: "list[Certified]") -> list[str]:
    """What an erasure says beside its outcomes: of whom nothing was there but a look-alike, who was
    erased before, and who is left under another spelling. Counts and requests, never ids."""
    nobody = [c for c in certificates if c["outcome"] == "nothing found"]
    near = [
        f"  nothing found, but a nearly equal id is there: {c['request']}; ask again with the "
        "spelling in the data"
        for c in nobody
        if c["others"]
    ]
    before = [
        f"  nothing found, already erased by {c['erased_before']['request']} on "
        f"{c['erased_before']['time'][:10]}: {c['request']}"
        for c in nobody
        if c["erased_before"]
    ]
    stay = [
        f"  {render_others(c['others'])}: {c['request']}; if that is the same person, ask for it "
        "as well"
        for c in certificates
        if c["others"] and c["outcome"] != "nothing found"
    ]
    return [
        *_some(near, "with nearly equal ids"),
        *_some(before, "that were erased before"),
        *_some(stay, "with other spellings that stay"),
    ]


def render_healed(healed: Mapping[str, object]) -> list[str]:
    """What a restore brought back, or a crash left, and an erase run put right."""
    parts = [text.format(healed[name]) for name, text in _HEALED.items() if healed[name]]
    if not parts:
        return []
    return [f"  Back from a restore or left by a crash, put right: {', '.join(parts)}."]


def _render_next(step: "Step") -> str:
    """Which of train, retrain and repair follows."""
    if not step["command"]:
        return f"Nothing has to be trained: {step['why']}."
    return f"To train: `{step['command']}`: {step['why']}."


def render_others(others: int) -> str:
    """How many other spellings of an id there are."""
    return f"{others} other spelling{'s stay' if others > 1 else ' stays'} in the data"


def _named(found: "PersonFound") -> str:
    """The spellings in the data that are known, and how many are not."""
    rest = found["others"] - len(found["spellings"])
    return ", ".join(map(repr, found["spellings"])) + (f" and {rest} more" if rest else "")


def _who(found: "PersonFound") -> str:
    """Who is meant, for who gave the id."""
    if found["hashed"]:
        return str(found["request"])
    return f"line {found['line']}" if found["line"] else repr(found["subject"])


def _some(lines: list[str], what: str) -> list[str]:
    rest = len(lines) - _SHOWN
    return lines if rest <= 0 else [*lines[:_SHOWN], f"  and {rest} more {what} (all with --json)"]
