"""A model of the hub as "id@commit": one content, wherever and whenever it is loaded.

A branch and a tag move; what is loaded under them tomorrow is another model. So a hub id comes with
a full commit, and both together are the model's name in stage jobs, recipes and the ledger, where
its digest is recorded.
"""

from s3t_core.config.sections import is_commit
from s3t_core.errors import UsageError


def pinned_hub_id(model: str, revision: str) -> str:
    """The name, "id@commit". Raises UsageError without a full commit, or when the id brings one of
    its own."""
    if "@" in model:
        raise UsageError(
            'expected [backbone] model to be "minilm", a directory or a hub id without "@", got '
            f"{model!r}; write the commit as [backbone] revision"
        )
    if not is_commit(revision):
        raise UsageError(
            "expected [backbone] revision to be the full commit (40 hex digits) of the hub id "
            f"{model!r}, got {revision or 'none'!r}; copy it from the history of the model's files "
            "on the hub (or, for a model on this machine, correct the path)"
        )
    return f"{model}@{revision}"


def split_hub_id(name: str) -> tuple[str, str]:
    """The inverse: id and commit. Raises UsageError unless there is a full commit."""
    model, _, revision = name.partition("@")
    pinned_hub_id(model, revision)
    return model, revision
