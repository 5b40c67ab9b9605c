"""Which experiment of an MLflow registry is this workspace's: the ledger says so, by its number and
when it was made.

A registry asks nobody for anything: whoever reaches it renames an experiment, takes its name, or
sets any tag. So:

1. An experiment is looked up by the number that the ledger recorded; one that was made at another
   time, or whose files lie elsewhere, is another's that was given the number anew.
2. Name and owner tag are put back where somebody changed them. One that was deleted is there again.
3. One that is gone for good is made anew, and recorded, before anything is logged there.
4. One that is found by its name, and was not recorded, is taken only with this workspace's tag,
   where its files lie where they belong, and with nothing in it: what a process that was killed
   before it could record it left behind. A ledger of before there were such entries takes it with
   what is in it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from flows.adapters.registry.connection import where_there
from s3t_core.erasure import events
from s3t_core.erasure.state import ExperimentRecord
from s3t_core.errors import WorkspaceError
from s3t_core.ports import Clock, Ledger
from s3t_core.times import rfc3339

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


OWNER_TAG = "s3t.ledger"
_LONGEST = 250
"""Characters of an experiment's name, at most."""
_KIND_TAG, _KIND = "mlflow.experimentKind", "custom_model_development"
"""By which MLflow's pages show runs with their measurements, and no traces."""


@dataclass(frozen=True)
class ExperimentBook:
    """What the ledger knows of the experiments at one tracking URI."""

    registry: str
    ledger: Ledger
    clock: Clock

    def append(self, record: ExperimentRecord) -> None:
        """Add a record. The caller holds the workspace."""
        self.ledger.append(
            events.ExperimentNamed(
                time=rfc3339(self.clock.now()),
                **asdict(record),
            )
        )

    def known(self) -> list[ExperimentRecord]:
        """Oldest first."""
        return [e for e in self.ledger.state().experiments if e.registry == self.registry]

    def began_before(self) -> bool:
        """Whether this ledger began before experiments were recorded, and something was trained
        since."""
        state = self.ledger.state()
        return not state.experiments and bool(state.stages or state.versions)


class ExperimentPlace(Protocol):
    """Where a kind of registry keeps the files of its experiments."""

    def new_location(self) -> str | None:
        """Where those of a new experiment shall lie; None where the server says so."""

    def location_of(self, experiment: "Experiment") -> str:
        """Where they lie, as the ledger keeps it. Raises WorkspaceError where the workspace was
        moved."""

    def check_expected(self, experiment: "Experiment") -> None:
        """That they lie where this workspace's belong. Raises WorkspaceError."""


class OwnExperiment:
    """The experiment that this workspace's runs and versions are in."""

    def __init__(
        self,
        client: "MlflowClient",
        name: str,
        owner: str,
        book: ExperimentBook,
        place: ExperimentPlace,
        others: Callable[[], bool],
    ) -> None:
        """`others`: whether versions are registered under the name."""
        self._client, self._name, self._owner = client, name, owner
        self._book, self._place, self._others = book, place, others

    def there(self) -> "list[Experiment]":
        """Every one that the ledger knows and the registry has, deleted ones too, oldest first.
        Nothing is changed."""
        found = [self._recorded(record) for record in self._book.known()]
        return [experiment for experiment in found if experiment is not None]

    def now(self) -> "Experiment | None":
        """The one that is in use, None where there is none yet. Nothing is changed."""
        there = self.there()
        if there:
            return there[-1]
        named = self._named()
        ours = named is not None and named.tags.get(OWNER_TAG) == self._owner
        return named if ours and self._book.began_before() else None

    def locations(self) -> list[str]:
        """Every place where files of this workspace ever lay, as the ledger keeps them, the present
        one last. Raises WorkspaceError where another's experiment has the place of one that is
        gone."""
        now = self.now()
        present = [] if now is None else [self._place.location_of(now)]
        before = dict.fromkeys(record.location for record in self._book.known())
        for record in self._book.known():
            if record.location not in present:
                self._check_free(record)
        return [*(place for place in before if place not in present), *present]

    def numbers(self) -> list[str]:
        """Of every one that is there. Nothing is changed."""
        now = self.now()
        found = self.there() or ([] if now is None else [now])
        return [str(experiment.experiment_id) for experiment in found]

    def is_begun(self) -> bool:
        """Whether anything was ever logged here. Nothing is changed."""
        return bool(self._book.known()) or self.now() is not None

    def number(self) -> str:
        """The number of the one in use, which is there afterwards, as the ledger tells. The caller
        holds the workspace. Raises WorkspaceError."""
        return str(self._held()[0].experiment_id)

    def put_right(self) -> bool:
        """Make it as the ledger tells; whether anything was otherwise. The caller holds the
        workspace. Raises WorkspaceError."""
        return self._held()[1]

    def whose(self) -> str:
        """Whose the name is: its ledger's name, "" where nothing bears it. Nothing is changed."""
        if self.now() is not None:
            return self._owner
        found = self._named()
        return "" if found is None else str(found.tags.get(OWNER_TAG, "nobody"))

    def leave(self) -> None:
        """Give up name and tag, so that another workspace may take the name. The caller holds the
        workspace."""
        number = self.number()
        self._client.rename_experiment(number, f"{self._name} left {self._owner}"[:_LONGEST])
        self._client.delete_experiment_tag(number, OWNER_TAG)

    def problems(self) -> list[str]:
        """What somebody changed of it, a sentence each."""
        now = self.now()
        if now is None:
            return ["the experiment of this workspace's runs is gone from the registry"]
        found = []
        if now.name != self._name:
            found.append(f"the experiment of this workspace's runs has another name: {now.name!r}")
        if now.tags.get(OWNER_TAG) != self._owner:
            found.append(
                "the experiment of this workspace's runs says that it is another's, or nobody's"
            )
        if now.lifecycle_stage != "active":
            found.append("the experiment of this workspace's runs was deleted")
        return found

    def _held(self) -> "tuple[Experiment, bool]":
        """It, and whether anything was otherwise than the ledger tells."""
        there = self.there()
        changed = [self._restored(experiment) for experiment in there]
        now, is_new = (there[-1], False) if there else self._begun()
        changed += [is_new, self._tagged(now), self._renamed(now)]
        return now, any(changed)

    def _get(self, number: str) -> "Experiment | None":
        with where_there():
            return self._client.get_experiment(number)
        return None

    def _named(self) -> "Experiment | None":
        return self._client.get_experiment_by_name(self._name)

    def _recorded(self, record: ExperimentRecord) -> "Experiment | None":
        found = self._get(record.id)
        if found is None or found.creation_time != record.created:
            return None
        return found if self._place.location_of(found) == record.location else None

    def _check_free(self, record: ExperimentRecord) -> None:
        found = self._get(record.id)
        if found is not None and self._recorded(record) is None:
            raise WorkspaceError(
                f"expected nobody else's experiment under the number {record.id}, whose files "
                f"would lie where this workspace's lay ({record.location}), got one: the registry "
                "lost its database. Have that experiment deleted there for good (mlflow gc), then "
                "run the command again"
            )

    def _begun(self) -> "tuple[Experiment, bool]":
        """One that is recorded before anything is logged there; whether it is a new one."""
        found = self._named()
        is_new = found is None
        if found is None:
            if not self._book.known() and not self._book.began_before() and self._others():
                raise self._anothers("a registered model of that name")
            number = self._client.create_experiment(
                self._name,
                self._place.new_location(),
                {OWNER_TAG: self._owner, _KIND_TAG: _KIND},
            )
            found = self._client.get_experiment(number)
        else:
            self._check_adoptable(found)
            self._restored(found)
        self._book.append(
            ExperimentRecord(
                registry=self._book.registry,
                id=str(found.experiment_id),
                location=self._place.location_of(found),
                created=int(found.creation_time or 0),
            )
        )
        return found, is_new

    def _check_adoptable(self, experiment: "Experiment") -> None:
        if experiment.tags.get(OWNER_TAG) != self._owner:
            raise self._anothers("an experiment of that name")
        self._place.check_expected(experiment)
        if not self._book.began_before() and not self._is_empty(experiment):
            raise self._anothers("an experiment of that name, with runs in it")

    def _anothers(self, what: str) -> WorkspaceError:
        return WorkspaceError(
            f"expected {self._name!r} in the registry to be this workspace's, got {what} that is "
            "another's or nobody's: an erasure here would destroy what is in it. Take another "
            "[system] name or server, or have it deleted there for good (mlflow gc)"
        )

    def _is_empty(self, experiment: "Experiment") -> bool:
        from mlflow.entities import ViewType

        number = [experiment.experiment_id]
        runs = self._client.search_runs(
            number,
            run_view_type=ViewType.ALL,
            max_results=1,
        )
        return not runs and not self._client.search_logged_models(number, max_results=1)

    def _restored(self, experiment: "Experiment") -> bool:
        """MLflow would refuse every write to one that is deleted, an erasure's too."""
        from mlflow.entities import LifecycleStage

        deleted = experiment.lifecycle_stage == LifecycleStage.DELETED
        if deleted:
            self._client.restore_experiment(experiment.experiment_id)
        return bool(deleted)

    def _tagged(self, experiment: "Experiment") -> bool:
        if experiment.tags.get(OWNER_TAG) == self._owner:
            return False
        self._client.set_experiment_tag(
            experiment.experiment_id,
            OWNER_TAG,
            self._owner,
        )
        return True

    def _renamed(self, experiment: "Experiment") -> bool:
        """Where another's has the name by now, it goes on under the one it was given: the number is
        what counts."""
        named = None if experiment.name == self._name else self._named()
        if experiment.name == self._name or named is not None:
            return False
        self._client.rename_experiment(experiment.experiment_id, self._name)
        return True
