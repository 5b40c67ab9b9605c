"""Of each text in an entry of the ledger it is decided whether somebody typed it: what a person
typed may quote another, and must not count as the system's own words."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_type_hints

from flows.adapters.baseline import _FREE, TYPED_SETTINGS
from s3t_core.config import Config
from s3t_core.erasure.events import LedgerEvent

DIGESTS = {
    *("before", "certificate", "commitment", "digest", "dir", "document", "ids", "key_check"),
    *("left", "near", "new", "objects", "old", "old_public", "once", "record", "salt"),
    *("key", "public", "seals_to"),
    *("signing_key", "stages", "subject", "suppression", "tokenizer_digest", "vouched"),
}
NUMBERS = {
    *("id", "ids_lost", "ids_unsearchable", "model_id", "move", "other", "plan_id", "release"),
    *("request", "requests", "run", "run_id", "same", "version", "versions", "waiting"),
    *("flow_run", "lease", "export", "exports", "replaces"),
}
OF_A_CLOSED_SET = {"asked_by", "basis", "cause", "forms", "id_rule", "moved", "step"}
TIMES = {"due", "time"}
OF_THE_SETTINGS = {"location", "model", "place", "registry"}
"""Places and models: the settings themselves count as the system's own words."""


def _kinds(base: type[LedgerEvent]) -> Iterator[type[LedgerEvent]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


def test_whether_somebody_typed_a_text_of_an_entry_is_decided_for_every_member() -> None:
    """A new member of text is added to one of the sets above, or to the free ones."""
    members = {
        member.name
        for kind in _kinds(LedgerEvent)
        for member in fields(kind)
        if get_type_hints(kind)[member.name] in (str, tuple[str, ...])
    }
    ours = DIGESTS | NUMBERS | OF_A_CLOSED_SET | TIMES | OF_THE_SETTINGS
    assert members - _FREE == ours


NAMES_OF_COLUMNS = {
    *("text", "text_pair", "label", "subject", "prompt", "response", "messages", "record"),
    *("held_out_by", "column"),
}
NAMES_OF_PLACES = {
    *("model", "revision", "address", "log_checkpoints_to", "url", "tracking_uri", "artifacts"),
    *("remote", "targets"),
}
AS_THE_DATA_HAS_THEM = {"labels", "values"}
"""Every certificate of somebody with that label would wait for a label to be taken out."""
CHOSEN = {
    *("id_rule", "delimiter", "encoding", "metric", "separator", "prior", "kind", "device"),
    *("target_modules", "max_memory", "jurisdiction", "cron", "since", "backend"),
}


def test_whether_somebody_types_a_setting_in_words_of_their_own_is_decided_for_every_one() -> None:
    """A new setting of text is added to one of the sets above, or to those that may quote."""

    def texts(model: Any) -> Iterator[str]:
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                yield from texts(field.annotation)
            elif "str" in str(field.annotation):
                yield name

    decided = NAMES_OF_COLUMNS | NAMES_OF_PLACES | AS_THE_DATA_HAS_THEM | CHOSEN
    assert set(texts(Config)) - TYPED_SETTINGS == decided
