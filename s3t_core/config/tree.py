"""All tables of `s3t.toml` together, and what must fit between them."""

from pydantic import model_validator

from s3t_core.config.data import DataConfig
from s3t_core.config.places import DatabaseConfig, DvcConfig, RegistryConfig, StoreConfig
from s3t_core.config.sections import (
    AdapterConfig,
    ApiConfig,
    AuditConfig,
    BackboneConfig,
    CallbacksConfig,
    DeletionBudgetConfig,
    ErasureConfig,
    PrefectConfig,
    RunnerConfig,
    Section,
    ServingConfig,
    SystemConfig,
    TiersConfig,
    TrainingConfig,
)
from s3t_core.config.task import TaskConfig
from s3t_core.domain import ACCURACY, Tiers, Topology
from s3t_core.errors import ConfigError


class Config(Section):
    """Everything `s3t.toml` can say."""

    data: DataConfig = DataConfig()
    task: TaskConfig = TaskConfig()
    system: SystemConfig = SystemConfig()
    backbone: BackboneConfig = BackboneConfig()
    adapter: AdapterConfig = AdapterConfig()
    training: TrainingConfig = TrainingConfig()
    runner: RunnerConfig = RunnerConfig()
    serving: ServingConfig = ServingConfig()
    deletion_budget: DeletionBudgetConfig = DeletionBudgetConfig()
    erasure: ErasureConfig = ErasureConfig()
    audit: AuditConfig = AuditConfig()
    prefect: PrefectConfig = PrefectConfig()
    api: ApiConfig = ApiConfig()
    callbacks: CallbacksConfig = CallbacksConfig()
    tiers: TiersConfig = TiersConfig()
    database: DatabaseConfig = DatabaseConfig()
    store: StoreConfig = StoreConfig()
    registry: RegistryConfig = RegistryConfig()
    dvc: DvcConfig = DvcConfig()

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        slices = self.system.slices
        if self.tiers.column and sum(self.tiers.slices) != slices:
            raise ValueError(
                f"[tiers] slices: expected numbers that sum to the {slices} slices of a shard, got "
                f"{list(self.tiers.slices)}"
            )
        if self.runner.kind == "dask" and not all(
            u.startswith("s3://") for u in (self.store.url, self.dvc.remote)
        ):
            raise ValueError(
                '[runner] kind: expected [store] url and [dvc] remote to be s3:// with "dask": its '
                "workers have nothing else in common with this machine"
            )
        if self.deletion_budget.min_mean_depth > slices:
            raise ValueError(
                f"[deletion_budget] min_mean_depth: expected a floor of at most {slices} (the full "
                f"depth; no state meets a higher one), got {self.deletion_budget.min_mean_depth:g}"
            )
        if not self.task.has_labels and self.data.labels:
            raise ValueError(
                f'[data] labels: expected none with [task] kind = "{self.task.kind}", whose rows '
                f"have no label, got {len(self.data.labels)}; leave the list empty"
            )
        self._check_conversations()
        if self.task.separator and any(self.task.separator in v for v in self.data.labels):
            raise ValueError(
                "[task] separator: expected one that stands in no label of [data] labels, got "
                f"{self.task.separator!r}"
            )
        self._check_floors()
        if self.serving.combine == "merged" and self.runner.max_memory:
            raise ValueError(
                '[serving] combine: expected "votes" for a backbone that is larger than one device '
                '([runner] max_memory), got "merged": its weights lie on several, or on disk'
            )
        on_cpu = self.runner.max_memory.strip().startswith("cpu")
        if self.runner.max_memory and on_cpu != (self.training.device == "cpu"):
            raise ValueError(
                "[runner] max_memory: expected what the device of [training] may hold "
                f'("{self.training.device}"), got that of another: "cpu=8GiB" with "cpu", GPUs by '
                'number with "cuda"; a stage\'s key names the device that computes it'
            )
        return self

    def _check_conversations(self) -> None:
        data, writes = self.data, self.task.kind == "generation"
        if data.text_pair and (writes or data.content == "image" or data.text_pair == data.text):
            raise ValueError(
                "[data] text_pair: expected the column of a second text, for a task with labels or "
                "numbers of texts, got another"
            )
        if writes and data.content == "image":
            raise ValueError(
                '[data] content: expected "text" with [task] kind = "generation", got "image"'
            )
        if data.of_conversations and not writes:
            raise ValueError(
                "[data] prompt, response, messages: expected none of them with [task] kind = "
                f'"{self.task.kind}", got {", ".join(data.of_conversations)}; they are for '
                '"generation"'
            )
        if writes and {data.text, data.label} & {
            data.subject,
            data.record,
            data.split_by,
        }:
            raise ValueError(
                "[data] text, label: expected names that no column of ids has with [task] kind = "
                '"generation" (what is learnt stands under them), got one of them'
            )
        if writes and self.runner.max_memory:
            raise ValueError(
                '[runner] max_memory: expected "" with [task] kind = "generation", whose backbone '
                "must fit on one device, got another"
            )

    def _check_floors(self) -> None:
        budget, metric = self.deletion_budget, self.task.measured_by
        if metric != ACCURACY and (budget.min_accuracy or budget.policy == "accuracy_floor"):
            raise ValueError(
                '[deletion_budget]: expected worst_score and policy = "score_floor" where versions '
                f"are measured by {metric} ([task]), got a floor of their accuracy"
            )

    @property
    def placement_tiers(self) -> Tiers | None:
        """Which slices the tiers of subjects go to; None without tiers."""
        tiers = self.tiers
        return (
            Tiers(
                tiers.column,
                tiers.values,
                tiers.slices,
            )
            if tiers.column
            else None
        )

    @property
    def topology(self) -> Topology:
        """m, L and B."""
        return Topology(
            self.system.shards,
            self.system.slices,
            self.system.budget,
        )

    def require_labels(self) -> tuple[str, ...]:
        """The labels, once they are needed; none where rows have no label. Raises ConfigError when
        none are declared."""
        if not self.data.labels and self.task.has_labels:
            raise ConfigError(
                'expected the labels in s3t.toml, as in [data] labels = ["yes", "no"], got none; '
                "write every label there is, in a fixed order"
            )
        return self.data.labels
