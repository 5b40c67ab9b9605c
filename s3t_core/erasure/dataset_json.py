"""A data version as it stands in the ledger."""

from typing import Any

from s3t_core.domain import DatasetVersion, SliceId, SliceVersion


def dataset_to_json(dataset: DatasetVersion) -> dict[str, object]:
    """A data version as JSON values: slices as rows of [digest, rows, md5], by shard then index."""
    return {
        "version": dataset.version,
        "shards": dataset.shards,
        "slices": dataset.slices,
        "content": [
            [_slice_to_json(dataset.slice_versions[SliceId(s, i)]) for i in range(dataset.slices)]
            for s in range(dataset.shards)
        ],
        "held_out": _slice_to_json(dataset.held_out),
        "identities": _slice_to_json(dataset.identities) if dataset.identities else None,
        "id_rule": list(dataset.id_rule),
        "id_columns": list(dataset.id_columns),
    }


def dataset_from_json(value: dict[str, Any]) -> DatasetVersion:
    """The inverse of `dataset_to_json`."""
    content = {
        SliceId(s, i): SliceVersion(*v)
        for s, row in enumerate(value["content"])
        for i, v in enumerate(row)
    }
    identities = value.get("identities")
    return DatasetVersion(
        value["version"],
        value["shards"],
        value["slices"],
        content,
        SliceVersion(*value["held_out"]),
        SliceVersion(*identities) if identities else None,
        tuple(value.get("id_rule", ())),
        tuple(value.get("id_columns", ())),
    )


def _slice_to_json(version: SliceVersion) -> list[object]:
    return [version.digest, version.rows, version.md5]
