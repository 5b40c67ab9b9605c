"""One frozen, validated config tree, read from `s3t.toml`.

Every key has a default and an explanation (its `description`), which `s3t init` writes beside it. A
wrong value is refused with what was expected; a value that a later release will accept is refused
with "not yet".

Nothing here may be computed from records (method.md, hazard 7): an operator may write what `s3t
plan` suggests.
"""

from s3t_core.config.data import DataConfig
from s3t_core.config.sections import (
    ADAPTER_KINDS,
    AdapterConfig,
    BackboneConfig,
    SystemConfig,
    TiersConfig,
    TrainingConfig,
)
from s3t_core.config.text import (
    merge_config,
    new_config,
    parse_config,
    render_config,
    render_value,
)
from s3t_core.config.tree import Config

__all__ = [
    "ADAPTER_KINDS",
    "AdapterConfig",
    "BackboneConfig",
    "Config",
    "DataConfig",
    "SystemConfig",
    "TiersConfig",
    "TrainingConfig",
    "merge_config",
    "new_config",
    "parse_config",
    "render_config",
    "render_value",
]
