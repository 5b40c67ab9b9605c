"""What commands and flows do."""

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="places: another cache is not told of",
        where="flows/workspace/stores.py::note_cache",
        takes="found is not None",
        puts="False",
        fails="tests/flows/test_dvcs_places.py::no_longer_names",
    ),
    Mutant(
        name="places: a cache whose disk is away is empty",
        where="flows/workspace/stores.py::_check_cache",
        takes="if away: ...",
        puts="if False: ...",
        fails="tests/flows/test_dvcs_places.py::no_longer_names",
    ),
    Mutant(
        name="places: an older configuration stays",
        where="flows/use_cases/reconciling.py::reconcile",
        takes="workspace.datasets.repository.put_remote_right()",
        puts="",
        fails="tests/flows/test_dvcs_places.py::older_configuration",
    ),
    Mutant(
        name="move: a link is removed and what it leads to stays",
        where="flows/use_cases/migrating.py::_alone",
        takes="access.check_footing(workspace)",
        puts="",
        fails="tests/flows/test_migrating.py::link_or_a_pipe",
    ),
    Mutant(
        name="move: a link that came meanwhile",
        where="flows/use_cases/leaving.py::LeftPlace.empty",
        takes="self.check_footing()",
        puts="",
        fails="tests/flows/test_migrating.py::link_or_a_pipe",
    ),
    Mutant(
        name="retrain: a stage is stored though an erasure overtook it",
        where="flows/use_cases/stage_run.py::StageRun._train_one",
        takes="self._case.data.has_moved(self._workspace.ledger.state(), self.plan.dataset, spec)",
        puts="False",
        fails="tests/flows/test_budget.py::during_the_retrain and stored",
    ),
    Mutant(
        name="retrain: a version is registered though an erasure overtook it",
        where="flows/use_cases/releasing.py::register",
        takes="_has_moved_on(state, case, candidate)",
        puts="False",
        fails="tests/flows/test_budget.py::during_the_retrain and registered",
    ),
    Mutant(
        name="retrain: triggered again after a crash",
        where="flows/use_cases/retraining.py::_trigger",
        takes='f"{wanted.id}:{wanted.attempt}"',
        puts="None",
        fails="tests/flows/test_budget.py::triggered_once",
    ),
    Mutant(
        name="retrain: an overtaken version is served again",
        where="flows/use_cases/releasing.py::_has_moved_on",
        takes="champion is not None and (before is None or champion.version != before.version)",
        puts="False",
        fails="tests/flows/test_budget.py::moved_the_version_on",
    ),
    Mutant(
        name="checkpoint: a ledger is held against none",
        where="flows/workspace/workspace.py::Workspace.ledger",
        takes="self.heads.check(ledger)",
        puts="",
        fails="tests/faults/test_checkpoints.py::rolled_back",
    ),
    Mutant(
        name="sweep: every remote is swept",
        where="flows/workspace/sweeping.py::_written_folders",
        takes="workspace.remote_folder",
        puts="workspace.datasets.local_remotes",
        fails="tests/faults/test_leftovers.py::left_as_they_are",
    ),
    Mutant(
        name="sweep: every remote is closed to others",
        where="flows/workspace/sweeping.py::sweep",
        takes="workspace.remote_folder",
        puts="workspace.datasets.local_remotes",
        fails="tests/faults/test_leftovers.py::left_as_they_are",
    ),
    Mutant(
        name="sweep: a living process loses its file",
        where="flows/workspace/sweeping.py::sweep",
        takes="lambda path: is_written(path, opened)",
        puts="lambda path: False",
        fails="tests/faults/test_leftovers.py::living_process",
    ),
    Mutant(
        name="a lost registry is replaced by an empty one",
        where="flows/workspace/workspace.py::Workspace.registry",
        takes="not there and self.ledger.state().versions",
        puts="False",
        fails="tests/flows/test_stopped.py::is_gone",
    ),
    Mutant(
        name="a remote that is away counts as clean",
        where="flows/workspace/stores.py::_check_cache",
        takes="if away: ...",
        puts="if False: ...",
        fails="tests/flows/test_nothing_left.py::is_away",
    ),
    Mutant(
        name="residue: a cache elsewhere is not searched",
        where="flows/workspace/composing.py::erase_ports",
        takes="*workspace.datasets.repository.own_caches()",
        puts="",
        fails="tests/flows/test_nothing_left.py::cache_outside",
    ),
    Mutant(
        name="a command that was told to end waits for its jobs",
        where="flows/use_cases/stage_run.py::_ending",
        takes="runner.stop()",
        puts="",
        fails="tests/flows/test_killed.py::told_to_end",
    ),
    Mutant(
        name="retrain: left to a serve that is gone",
        where="flows/prefect_flows/triggering.py::PrefectDeployment.is_carried_out",
        takes="is_our_server(url) and (not is_held(self._serve_lock))",
        puts="False",
        fails="tests/flows/test_budget.py::serve_that_is_gone",
    ),
    Mutant(
        name="profile: a version of two is built",
        where="flows/use_cases/releasing.py::candidate_of",
        takes="check_one_recipe(found.release, plan.recipe)",
        puts="",
        fails="tests/flows/test_profile.py::of_two_profiles",
    ),
    Mutant(
        name="profile: stages of another one pass for these by their bytes",
        where="s3t_core/learning/training_plan.py::same_stages",
        takes=(
            "mine = [(r.shard, r.number, [(s.key, s.digest) for s in r.stages]) for r in "
            "replicas]\n"
            "theirs = [(r.shard, r.number, [(s.key, s.digest) for s in r.stages]) for r in "
            "release.replicas]"
        ),
        puts=(
            "mine = [(r.shard, r.number, [s.digest for s in r.stages]) for r in replicas]\n"
            "theirs = [(r.shard, r.number, [s.digest for s in r.stages]) for r in "
            "release.replicas]"
        ),
        fails="tests/flows/test_profile.py::version_of_their_own",
    ),
    Mutant(
        name="buckets: a certificate without the time that bytes may stay",
        where="flows/workspace/composing.py::erase_policy",
        takes="_(deleted_bytes_seconds=3600 * workspace.config.erasure.deleted_bytes_hours)",
        puts="",
        fails="tests/flows/test_offline.py::was_declared",
    ),
    Mutant(
        name="change: without the lease of other machines",
        where="flows/workspace/access.py::changing",
        takes=(
            "Lease(workspace.database, CHANGE, lock_place(workspace.lock_path)).held(wait_seconds)"
        ),
        puts="contextlib.nullcontext(Lease(workspace.database, CHANGE, ''))",
        fails="tests/faults/test_lease.py::every_command_that_changes",
    ),
    Mutant(
        name="move: what is left at the old places stays",
        where="flows/use_cases/migrating.py::_Move.finish",
        takes="self._destroy(left)",
        puts="",
        fails="tests/flows/test_migrating.py::nothing_is_left",
    ),
    Mutant(
        name="move: only what has its final name goes",
        where="flows/use_cases/leaving.py::LeftPlace._is_ours",
        takes="is_half_written(base)",
        puts="",
        fails="tests/flows/test_migrating.py::while_it_writes",
    ),
    Mutant(
        name="move: an object that the ledger does not know stays",
        where="flows/use_cases/leaving.py::LeftPlace.empty",
        takes="self._names()",
        puts="list(self._names())[:-1]",
        fails="tests/flows/test_migrating.py::whatever_the_ledger",
    ),
    Mutant(
        name="move: somebody else's file is left where nobody looks",
        where="flows/use_cases/leaving.py::LeftPlace.check_alone",
        takes="if others: ...",
        puts="if False: ...",
        fails="tests/flows/test_migrating.py::somebody_elses",
    ),
    Mutant(
        name="move: a disk that is away is an empty place",
        where="flows/use_cases/leaving.py::LeftPlace.empty",
        takes="self.marked",
        puts="False",
        fails="tests/flows/test_migrating.py::is_away",
    ),
    Mutant(
        name="move: what another workspace has begun at the new places goes",
        where="flows/use_cases/migrating.py::_Move.destroy_copies",
        takes="self._journal.claimed and self._journal.emptied != 'new'",
        puts="self._journal.emptied != 'new'",
        fails="tests/flows/test_migrating.py::before_it_was_marked",
    ),
    Mutant(
        name="move: a mark is one, whoever's it is",
        where="flows/use_cases/leaving.py::LeftPlace.forget",
        takes="self.marked and mark not in (None, ours)",
        puts="False",
        fails="tests/flows/test_migrating.py::before_it_was_marked",
    ),
    Mutant(
        name="sweep: only where it is known that something is written",
        where="flows/workspace/sweeping.py::_written_folders",
        takes="p.is_dir() and p.name not in _SWEPT_APART",
        puts="p.name in ('needles', 'quarantine', 'certificates')",
        fails="tests/faults/test_leftovers.py::written_to_is_swept",
    ),
    Mutant(
        name="audit: a report is written where data lies",
        where="flows/workspace/access.py::check_outside",
        takes="within and (not path.resolve().is_relative_to(workspace.reports_dir.resolve()))",
        puts="False and (not path.resolve().is_relative_to(workspace.reports_dir.resolve()))",
        fails="tests/flows/test_cli.py::written_for_its_user",
    ),
    Mutant(
        name="verify: what lies deeper is passed over",
        where="flows/use_cases/verifying.py::_verify_files",
        takes="_unread(path, files)",
        puts="[]",
        fails="tests/flows/test_cli.py::at_once",
    ),
    Mutant(
        name="move: an interrupted ingest is moved along",
        where="flows/use_cases/migrating.py::_check_begin",
        takes="old.datasets.check_recorded(state.datasets)",
        puts="",
        fails="tests/flows/test_migrating.py::was_interrupted",
    ),
    Mutant(
        name="move: erasures go on while copies lie about",
        where="flows/workspace/workspace.py::Workspace.refuse_migration",
        takes="self.migration_path.is_file()",
        puts="False",
        fails="tests/flows/test_migrating.py::cut_anywhere",
    ),
    Mutant(
        name="restore: stages that came back stay",
        where="flows/use_cases/reconciling.py::_destroy_stages",
        takes="workspace.store.delete(digest)",
        puts="pass",
        fails="tests/flows/test_reconciling.py::destroyed_again",
    ),
    Mutant(
        name="restore: objects that came back stay",
        where="flows/use_cases/reconciling.py::_destroy_objects",
        takes="workspace.datasets.destroy(back, [], state.dataset)",
        puts="pass",
        fails="tests/flows/test_reconciling.py::destroyed_again",
    ),
    Mutant(
        name="restore: a version that came back serves",
        where="flows/use_cases/reconciling.py::_heal_registry",
        takes="registry.destroy(list(whole.values()), state.runs_of(state.stages))",
        puts="",
        fails="tests/flows/test_reconciling.py::serves_no_more",
    ),
    Mutant(
        name="Dask: how the waiting for a job ended counts, not whether it is done",
        where="flows/adapters/dask_runner.py::DaskRunner._is_done",
        takes="contextlib.suppress(TimeoutError)",
        puts="contextlib.nullcontext()",
        fails="tests/stack/test_dask.py::no_lost_cluster",
    ),
    Mutant(
        name="Dask: a lease of destroyed data counts for nothing",
        where="flows/adapters/scan_scope.py::ScanScope.check_away",
        takes="{f.digest for f in files} - gone",
        puts="{f.digest for f in files}",
        fails="tests/stack/test_dask.py::machine_is_away",
    ),
    Mutant(
        name="healing: a quarantined row of whom a hash found nobody comes back",
        where="flows/use_cases/reconciling.py::reconcile",
        takes="workspace.datasets.erase_quarantine(erased, nobody)",
        puts="workspace.datasets.erase_quarantine(erased)",
        fails="tests/flows/test_cut_off.py::restored_quarantine_row",
    ),
    Mutant(
        name="documents: a renamed copy",
        where="flows/use_cases/verifying.py::_check_name",
        takes="request is not None and named and (file.name != f'{request}.json')",
        puts="False",
        fails="tests/faults/test_beside_the_ledger.py::renamed_copy",
    ),
    Mutant(
        name="change: a hold that has ended counts",
        where="flows/workspace/change.py::change_under",
        takes="held.end()",
        puts="pass",
        fails="tests/faults/test_change.py::hold_that_has_ended and sweep",
    ),
    Mutant(
        name="change: a sweep asks nobody",
        where="flows/workspace/sweeping.py::sweep",
        takes="held.require()",
        puts="",
        fails="tests/faults/test_change.py::hold_that_has_ended and sweep",
    ),
    Mutant(
        name="lease: what a stopped eraser wrote stays",
        where="flows/use_cases/erasing.py::erase_pending",
        takes=(
            "with healing_a_lost_lease(workspace.root), "
            "access.changing(workspace, max(wait_seconds, training)) as held: ..."
        ),
        puts="with access.changing(workspace, max(wait_seconds, training)) as held: ...",
        fails="tests/flows/test_taken_over.py::do_not_come_back",
    ),
    Mutant(
        name="lease: what a stopped training published serves",
        where="flows/use_cases/training.py::fill_in",
        takes=(
            "with healing_a_lost_lease(workspace.root), "
            "access.training(workspace, wait_for_training): ..."
        ),
        puts="with access.training(workspace, wait_for_training): ...",
        fails="tests/flows/test_taken_over.py::about_to_serve and retrain",
    ),
    Mutant(
        name="move: places that were left are looked at no more",
        where="flows/use_cases/reconciling.py::_clean_left",
        takes=(
            "removed[section] += left.clean(lambda name: name.rpartition('.')[0] in known "
            "or name in known)"
        ),
        puts="0 and left.clean(lambda name: name.rpartition('.')[0] in known or name in known)",
        fails="tests/flows/test_migrating.py::place_that_was_left_is_destroyed",
    ),
    Mutant(
        name="move: another's place is emptied",
        where="flows/use_cases/leaving.py::LeftPlace.clean",
        takes="if mark not in (None, self.owner.encode()): ...",
        puts="",
        fails="tests/flows/test_migrating.py::place_that_was_left_is_destroyed",
    ),
    Mutant(
        name="move: a file alone knows of it",
        where="flows/workspace/access.py::_refuse_begun_move",
        takes="workspace.ledger.state().moving is not None",
        puts="False",
        fails="tests/flows/test_migrating.py::known_to_the_ledger",
    ),
    Mutant(
        name="checkpoint: a slower command goes back",
        where="flows/workspace/signing.py::Signing.write_checkpoint",
        takes="workspace_lock(self._layout.state_dir / 'checkpoint.lock', _SIGNING_SECONDS)",
        puts="contextlib.nullcontext()",
        fails="tests/faults/test_checkpoints.py::slower_command",
    ),
    Mutant(
        name="loading: a living process is passed over",
        where="flows/adapters/scan_scope.py::ScanScope.check_away",
        takes="wait_until_unused(self._loading, _LOADING_SECONDS)",
        puts="pass",
        fails="tests/flows/test_nothing_left.py::waited_for",
    ),
    Mutant(
        name="verify: evidence that contradicts other evidence",
        where="flows/use_cases/verifying.py::verify_paths",
        takes="between += _contradictions(once, keys)",
        puts="",
        fails="tests/faults/test_beside_the_ledger.py::evidence_contradicts",
    ),
    Mutant(
        name="version: the code that lies in it is run",
        where="flows/use_cases/predicting.py::_loaded",
        takes="code.load_context(_Context({'release': str(files)}, {'pinned': True}))",
        puts=(
            "import mlflow\n"
            "mlflow.pyfunc.load_model(str(files.parents[1]))\n"
            "code.load_context(_Context({'release': str(files)}, {'pinned': True}))"
        ),
        fails="tests/flows/test_release_document.py::not_run_by_us",
    ),
    Mutant(
        name="version: a move that was cut off goes on with what is there",
        where="flows/use_cases/migrating.py::_Move._copy_registry",
        takes="self.new.registry.count()",
        puts="False",
        fails="tests/stack/test_migrating.py::cut_off_is_not",
    ),
    Mutant(
        name="keys: a replaced key comes back in an exported ledger",
        where="flows/use_cases/verifying.py::_check_ledger_keys",
        takes=(
            "given.check_chain(signer, ((c.old, c.new, not c.vouched) for c in state.key_changes))"
        ),
        puts=(
            "False and given.check_chain(signer, ((c.old, c.new, not c.vouched) for c in "
            "state.key_changes))"
        ),
        fails="tests/faults/test_beside_the_ledger.py::come_back",
    ),
    Mutant(
        name="healing: what an open erasure destroyed may come back",
        where="flows/use_cases/reconciling.py::_erased",
        takes="state.planned if 'destroy' in state.steps else ()",
        puts="()",
        fails="tests/flows/test_reconciling.py::while_an_erasure",
    ),
    Mutant(
        name="healing: an open erasure is passed over",
        where="flows/use_cases/reconciling.py::reconcile",
        takes="state.settled is None",
        puts="state.settled is None or state.plan is not None",
        fails="tests/flows/test_reconciling.py::while_an_erasure",
    ),
    Mutant(
        name="healing: what is kept of slices that are gone stays",
        where="flows/use_cases/reconciling.py::_destroy_activations",
        takes=(
            "workspace.activations.allow({v.digest for v in state.dataset.files()} if "
            "state.dataset else ())"
        ),
        puts="0",
        fails="tests/flows/test_reconciling.py::kept_activations",
    ),
    Mutant(
        name="healing: files of models that no database names stay",
        where="flows/use_cases/reconciling.py::_heal_registry",
        takes="registry.remove_leftovers(kept.values())",
        puts="False",
        fails="tests/flows/test_reconciling.py::kept_activations",
    ),
    Mutant(
        name="verify: what is no file is a traceback",
        where="flows/use_cases/verifying.py::_content",
        takes="OSError",
        puts="PermissionError",
        fails="tests/faults/test_hostile.py::no_file",
    ),
    Mutant(
        name="people: an erasure forgets what it was asked beside",
        where="flows/use_cases/erasing.py::_Run.plans",
        takes="self.alike |= look_alikes(self.workspace, asked)",
        puts="",
        fails="tests/flows/test_people.py::by_request_requests_and_erase",
    ),
    Mutant(
        name="documents: a name that only looks like a request's",
        where="flows/use_cases/verifying.py::_check_name",
        takes="not alone or _REQUEST.match(file.name.casefold())",
        puts="_REQUEST.match(file.name.casefold())",
        fails="tests/faults/test_beside_the_ledger.py::only_looks_like",
    ),
    Mutant(
        name="a disk that is not mounted is a remote without anything",
        where="flows/workspace/stores.py::present_remotes",
        takes="is_remote(p)",
        puts="p.is_dir()",
        fails="tests/flows/test_nothing_left.py::is_no_remote",
    ),
    Mutant(
        name="a disk that is not mounted is a cache without anything",
        where="flows/workspace/stores.py::claim",
        takes="_check_cache(workspace)",
        puts="pass",
        fails="tests/flows/test_nothing_left.py::is_no_cache",
    ),
    Mutant(
        name="version: a training that puts one right does not tell the ledger",
        where="flows/use_cases/releasing.py::_registered",
        takes="champion and candidate.is_champion and (not champion.destroyed)",
        puts="False",
        fails="tests/flows/test_release_document.py::training_puts",
    ),
    Mutant(
        name="version: what a training replaced is left there",
        where="flows/use_cases/releasing.py::_retire",
        takes="not replaced",
        puts="",
        fails="tests/flows/test_release_document.py::training_puts",
    ),
    Mutant(
        name="predict: a row that cannot be read has a label",
        where="flows/use_cases/predicting.py::_check_rows",
        takes="if len(wrong): ...",
        puts="if False: ...",
        fails="tests/flows/test_predicting.py::cannot_be_read",
    ),
    Mutant(
        name="predict: a row without a text is left out",
        where="flows/use_cases/predicting.py::predict_file",
        takes="for text in batch: ...",
        puts="for text in texts: ...",
        fails="tests/flows/test_predicting.py::without_a_text",
    ),
    Mutant(
        name="verify: a copy beside its original counts as another",
        where="flows/use_cases/verifying.py::verify_paths",
        takes="requests.count(r) > 1",
        puts="False",
        fails="tests/flows/test_cli.py::several",
    ),
    Mutant(
        name="forecast: requests that found nobody are a rate",
        where="flows/budget.py::requests_counted",
        takes="'nothing found'",
        puts="'nothing at all'",
        fails="tests/unit/test_next_steps.py::no_rate",
    ),
    Mutant(
        name="footing: a change looks at nothing",
        where="flows/workspace/access.py::changing",
        takes="check_footing(workspace)",
        puts="",
        fails="tests/faults/test_footing.py::in_the_place and (stage or journal)",
    ),
    Mutant(
        name="settings: the end of what git ignores",
        where="flows/workspace/creating.py::_ignore",
        takes="b'' if there.endswith(b'\\n') or not there else b'\\n'",
        puts="b''",
        fails="tests/faults/test_damaged_settings.py::byte_for_byte",
    ),
    Mutant(
        name="settings: a damaged note of a move is a traceback",
        where="flows/use_cases/migrating.py::_journal",
        takes="(OSError, ValueError, LookupError, TypeError, RecursionError, ConfigError)",
        puts="OSError",
        fails="tests/faults/test_damaged_settings.py::note_of_a_move",
    ),
    Mutant(
        name="loading: what a dead process left stays",
        where="flows/workspace/sweeping.py::sweep",
        takes="sweep_unused(workspace.state_dir / 'loading')",
        puts="",
        fails="tests/faults/test_loading.py::whatever_its_number",
    ),
)
