"""Database, locks, keys, registry."""

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="clock: who only looks tells of a time to come",
        where="s3t_core/erasure/closing.py::as_counted",
        takes="received - now <= CLOCK_TOLERANCE",
        puts="True",
        fails="tests/faults/test_beside_the_ledger.py::only_looks",
    ),
    Mutant(
        name="clock: a request of a time to come waits for it",
        where="s3t_core/erasure/urgency.py::why_at_once",
        takes="parse_time(r.received) - now > CLOCK_TOLERANCE",
        puts="False",
        fails="tests/faults/test_beside_the_ledger.py::only_looks",
    ),
    Mutant(
        name="ledger: members that nobody knows are passed over",
        where="s3t_core/erasure/events.py::from_json",
        takes="told.keys() <= readers.keys()",
        puts="True",
        fails="tests/unit/erasure/test_events.py::nobody_knows",
    ),
    Mutant(
        name="ledger: members of any type are taken",
        where="s3t_core/erasure/events.py::_reader_of",
        takes="_is(wanted, value)",
        puts="True",
        fails="tests/unit/erasure/test_events.py::nobody_knows",
    ),
    Mutant(
        name="failover: a process takes an older copy for the ledger it has read",
        where="flows/adapters/database.py::Database.folded",
        takes="if known.size > len(rows) or (known.size and rows[known.size - 1].seal != "
        "known.seal): ...",
        puts="if known.size > len(rows) or (known.size and rows[known.size - 1].seal != "
        "known.seal):\n    known = Folded(0, b'', State())",
        fails="tests/faults/test_ledger.py::believes_no_older_copy",
    ),
    Mutant(
        name="failover: a certificate is signed over a ledger that lost an entry",
        where="flows/adapters/certificates.py::CertificateFiles.issue",
        takes="self._heads.check(self._ledger)",
        puts="",
        fails="tests/faults/test_checkpoints.py::took_its_place_under_a_command",
    ),
    Mutant(
        name="failover: a checkpoint is held against larger ones alone",
        where="flows/adapters/checkpoints.py::CheckpointFiles._continued",
        takes="for other in (*inside, *outside): ...",
        puts="for other in [c for c in inside if c.head.size > checkpoint.head.size]: ...",
        fails="tests/faults/test_checkpoints.py::grew_again",
    ),
    Mutant(
        name="clock: who asks again is told the wrong time",
        where="flows/adapters/book.py::_known",
        takes="as_told(found, state)",
        puts="found",
        fails="tests/faults/test_beside_the_ledger.py::times_that_hold",
    ),
    Mutant(
        name="destroy: a run the ledger never learned of stays",
        where="flows/adapters/registry/runs.py::Runs.delete",
        takes="run.info.run_id not in keep",
        puts="False",
        fails="tests/flows/test_walk.py::record_to_a_certificate",
    ),
    Mutant(
        name="evidence: who lost the lease goes on writing",
        where="flows/adapters/database.py::Database.transaction",
        takes="self.fence is not None",
        puts="self.fence is None",
        fails="tests/faults/test_lease.py::stood_still",
    ),
    Mutant(
        name="a dead holder keeps the lease",
        where="flows/adapters/lease.py::Lease._take",
        takes="time.monotonic() - began > self._patience",
        puts="False",
        fails="tests/faults/test_lease.py::killed",
    ),
    Mutant(
        name="residue: packed git objects are not searched",
        where="flows/adapters/local.py::WorkspaceResidue.scan",
        takes="lambda pack: git_objects(pack, self._temporary)",
        puts="lambda _: iter(())",
        fails="tests/flows/test_nothing_left.py::packed_git",
    ),
    Mutant(
        name="sweep: uploads to any bucket are thrown away",
        where="flows/adapters/local.py::WorkspaceResidue._objects",
        takes="bucket.url in self._written",
        puts="True",
        fails="tests/faults/test_leftovers.py::unfinished_uploads",
    ),
    Mutant(
        name="a release document is believed before the registry vouched for it",
        where="flows/adapters/served_model.py::Serving.load_context",
        takes="self._check(own, version)",
        puts="",
        fails="tests/flows/test_release_document.py::is_not_loaded",
    ),
    Mutant(
        name="offline use needs no declaration",
        where="flows/adapters/served_model.py::Serving._settled",
        takes="self._loaded and since <= serving.get('offline_seconds', 0)",
        puts="self._loaded",
        fails="tests/flows/test_offline.py::offline",
    ),
    Mutant(
        name="children outlive a killed parent",
        where="flows/adapters/child.py::_watch",
        takes="os.killpg(0, signal.SIGKILL)",
        puts="pass",
        fails="tests/flows/test_serving.py::die_with",
    ),
    Mutant(
        name="a damaged version is not mended",
        where="flows/adapters/registry/__init__.py::MlflowRegistry.publish",
        takes="if known: ...",
        puts="if known and False: ...",
        fails="tests/flows/test_walk.py::damaged_or_lost",
    ),
    Mutant(
        name="profile: torch may have read what chooses kernels",
        where="flows/adapters/runner.py::_child",
        takes="pins.pin(os.environ)",
        puts="pass",
        fails="tests/exactness/test_profile.py::may_have_read",
    ),
    Mutant(
        name="schema: a later release's database is taken",
        where="flows/migrations/__init__.py::upgrade",
        takes=(
            "raise StorageError(f'expected a database of revision {HEAD} or earlier, got "
            "{revision_of(connection)!r}, made by a later release; install that release') "
            "from None"
        ),
        puts=(
            "return\n"
            "raise StorageError(f'expected a database of revision {HEAD} or earlier, got "
            "{revision_of(connection)!r}, made by a later release; install that release') "
            "from None"
        ),
        fails="tests/unit/adapters/test_migrations.py::later_release",
    ),
    Mutant(
        name="roles: an account that looks holds up the others",
        where="flows/adapters/database.py::_begin_writing",
        takes="connection.execute(select(WRITER).with_for_update())",
        puts="connection.exec_driver_sql('SELECT pg_advisory_xact_lock(1)')",
        fails="tests/stack/test_roles.py::holds_up_nobody",
    ),
    Mutant(
        name="requests: another key for an open request is on no record",
        where="flows/adapters/book.py::_accepted",
        takes="again if once else None",
        puts="None",
        fails="tests/faults/test_beside_the_ledger.py::ledger_alone",
    ),
    Mutant(
        name="PostgreSQL: writers do not wait for each other",
        where="flows/adapters/database.py::_begin_writing",
        takes="select(WRITER).with_for_update()",
        puts="select(WRITER)",
        fails="tests/stack/test_postgresql.py::append_at_once",
    ),
    Mutant(
        name="buckets: a scan of the newest versions alone",
        where="flows/adapters/local.py::WorkspaceResidue.scan",
        takes="self.check()",
        puts="",
        fails="tests/stack/test_s3.py::told_by_each_removal",
    ),
    Mutant(
        name="buckets: the scan leaves them out",
        where="flows/adapters/local.py::WorkspaceResidue.scan",
        takes="self._objects()",
        puts="()",
        fails="tests/stack/test_s3.py::reads_every_object",
    ),
    Mutant(
        name="registry: a server's files of destroyed versions stay",
        where="flows/adapters/registry/server.py::ServerFiles.remove_leftovers",
        takes="[*left, self._clean(now, kept)]",
        puts="left",
        fails="tests/stack/test_walk.py::whole_walk",
    ),
    Mutant(
        name="move: the old database stays",
        where="flows/adapters/database.py::Database.move_to",
        takes=("for table in tables:\n    table.drop(here)"),
        puts="",
        fails="tests/flows/test_migrating.py::old_database_open",
    ),
    Mutant(
        name="move: another workspace's ledger is written over",
        where="flows/adapters/database.py::Database.move_to",
        takes="_owner_of(there) not in ('', _owner_of(here))",
        puts="False",
        fails="tests/flows/test_migrating.py::began_a_ledger",
    ),
    Mutant(
        name="move: another workspace's ledger is taken away",
        where="flows/adapters/database.py::Database.remove",
        takes="_owner_of(connection) in ('', owner)",
        puts="True",
        fails="tests/flows/test_migrating.py::began_a_ledger",
    ),
    Mutant(
        name="a job outlives whoever asked for it",
        where="flows/adapters/runner.py::_end_with_parent",
        takes=("wait([parent.sentinel])\nos.kill(os.getpid(), signal.SIGKILL)"),
        puts="pass",
        fails="tests/unit/adapters/test_runner.py::is_killed",
    ),
    Mutant(
        name="servers: another workspace's versions are taken",
        where="flows/adapters/registry/experiment.py::OwnExperiment._check_adoptable",
        takes="experiment.tags.get(OWNER_TAG) != self._owner",
        puts="False",
        fails="tests/flows/test_registry_ids.py::before_the_first_training_is_not_taken",
    ),
    Mutant(
        name="Dask: certified while a worker's machine is away",
        where="flows/adapters/local.py::WorkspaceResidue.scan",
        takes="self._scope.check_away()",
        puts="",
        fails="tests/stack/test_dask.py::machine_is_away",
    ),
    Mutant(
        name="ledger: seals are not checked",
        where="flows/adapters/database.py::_check_rows",
        takes="not hmac.compare_digest(seal, row.seal)",
        puts="False",
        fails="tests/faults/test_beside_the_ledger.py::may_only_insert",
    ),
    Mutant(
        name="ledger: a sealed entry may be repeated elsewhere",
        where="flows/adapters/database.py::seal_of",
        takes="b's3t ledger entry\\x00' + struct.pack('>Q', number) + before",
        puts="b's3t ledger entry\\x00'",
        fails="tests/faults/test_beside_the_ledger.py::not_believed_anywhere",
    ),
    Mutant(
        name="ledger: what does not follow is appended",
        where="flows/adapters/database.py::Database.append",
        takes="fold((json.loads(leaf) for leaf in leaves), before.state, before.size)",
        puts="",
        fails="tests/faults/test_beside_the_ledger.py::before_it_is_appended",
    ),
    Mutant(
        name="checkpoint: names count, not what is said",
        where="flows/adapters/checkpoints.py::CheckpointFiles._read",
        takes="path.name != _name(checkpoint)",
        puts="False",
        fails="tests/faults/test_beside_the_ledger.py::hides_no_newer",
    ),
    Mutant(
        name="checkpoint: a name that is taken is passed over",
        where="flows/adapters/checkpoints.py::CheckpointFiles.write",
        takes="self._check_same(path, checkpoint)",
        puts="pass",
        fails="tests/faults/test_beside_the_ledger.py::other_bytes",
    ),
    Mutant(
        name="checkpoint: what is remembered counts no more",
        where="flows/adapters/checkpoints.py::CheckpointFiles._outside_ones",
        takes="new or c.head.size == largest",
        puts="new",
        fails="tests/faults/test_beside_the_ledger.py::largest_signed",
    ),
    Mutant(
        name="checkpoints: a directory of another's stops everybody",
        where="flows/adapters/checkpoints.py::CheckpointFiles._read",
        takes="not named and (not path.is_file())",
        puts="False",
        fails="tests/faults/test_checkpoints.py::stops_nobody_but",
    ),
    Mutant(
        name="checkpoints: a pipe under our own name is passed over",
        where="flows/adapters/checkpoints.py::CheckpointFiles._read",
        takes="not named and (not path.is_file())",
        puts="not path.is_file()",
        fails="tests/faults/test_checkpoints.py::stops_nobody_but",
    ),
    Mutant(
        name="checkpoints: settings without their place will do",
        where="flows/adapters/heads.py::SignedHeads.check",
        takes="recorded not in ('', self.outside) and (not self.moves)",
        puts="False",
        fails="tests/faults/test_checkpoints.py::hide_no_rollback",
    ),
    Mutant(
        name="checkpoints: the old place is looked at no more",
        where="flows/adapters/heads.py::SignedHeads.check",
        takes="'' if self.moves == 'lost' else recorded or self.outside",
        puts="'' if self.moves else recorded or self.outside",
        fails="tests/faults/test_checkpoints.py::hide_no_rollback or lost_on_the_record",
    ),
    Mutant(
        name="checkpoints: an emptied place will do",
        where="flows/adapters/checkpoints.py::CheckpointFiles.check",
        takes="self._outside is not None and recorded.checkpoints_at and (not outside)",
        puts="False",
        fails="tests/faults/test_checkpoints.py::lost_on_the_record",
    ),
    Mutant(
        name="checkpoints: a place is named before anything is kept there",
        where="flows/workspace/signing.py::Signing.note_place",
        takes="held.require()",
        puts="self._ledger.state().checkpoints_at == self._heads.outside or self._ledger.append("
        "events.CheckpointsPlaced(time=self._now(), place=self._heads.outside, by=by, lost=False))",
        fails="tests/faults/test_checkpoints.py::once_something_is_kept",
    ),
    Mutant(
        name="checkpoints: nobody says who moves them",
        where="s3t_core/erasure/rules.py::_checkpoints",
        takes="bool(event.by) or not replaces",
        puts="True",
        fails="tests/unit/erasure/test_rules.py::moved_by_somebody",
    ),
    Mutant(
        name="checkpoints: an erase run does not tell where they are",
        where="flows/use_cases/reconciling.py::reconcile",
        takes="workspace.signing.note_place(held)",
        puts="",
        fails="tests/flows/test_reconciling.py::names_the_place_outside",
    ),
    Mutant(
        name="checkpoint: whatever lies beside the keys signs",
        where="flows/adapters/checkpoints.py::_check_signer",
        takes="signer not in state.signed_by",
        puts="False",
        fails="tests/faults/test_checkpoints.py::beside_the_keys",
    ),
    Mutant(
        name="checkpoint: what is refused is remembered all the same",
        where="flows/adapters/checkpoints.py::CheckpointFiles.check",
        takes="recorded, now = (state(), leaves())",
        puts="recorded, now = (state(), leaves()); self._memory.save()",
        fails="tests/faults/test_checkpoints.py::beside_the_keys",
    ),
    Mutant(
        name="bundle: whatever lies beside the keys signed what an auditor kept",
        where="flows/workspace/signing.py::Signing.public_keys",
        takes="key_id(k) in known",
        puts="known",
        fails="tests/faults/test_checkpoints.py::beside_the_keys and bundle",
    ),
    Mutant(
        name="checkpoint: a replaced key's counts",
        where="flows/adapters/checkpoints.py::_check_signer",
        takes="replaced is not None and checkpoint.head.size > replaced.entry",
        puts="False",
        fails="tests/faults/test_beside_the_ledger.py::counts_only",
    ),
    Mutant(
        name="keys: the next key is not on disk before the ledger tells of it",
        where="flows/adapters/keys.py::write_next_key",
        takes="_write_private(folder / SIGNING_NEXT, private)",
        puts="",
        fails="tests/faults/test_rotating.py::killed_anywhere",
    ),
    Mutant(
        name="keys: a second change writes over a key that the ledger names",
        where="flows/use_cases/rotating.py::rotate_signing_key",
        takes="adopt_held(folder, state)",
        puts="",
        fails="tests/faults/test_rotating.py::begins_where_the_first_was_killed",
    ),
    Mutant(
        name="keys: a key signs what the ledger says later",
        where="flows/workspace/signing.py::Signing.write_checkpoint",
        takes="self._key_and_leaves()",
        puts="(self.signing_key(), self._ledger.so_far()[1])",
        fails="tests/faults/test_rotating.py::no_replaced_key_signs",
    ),
    Mutant(
        name="keys: a document is signed by the key of the command's beginning",
        where="flows/workspace/workspace.py::Workspace.certificates",
        takes="self.signing.signing_key",
        puts="(lambda key: (lambda: key))(self.signing.signing_key())",
        fails="tests/faults/test_rotating.py::signed_by_the_key_that_signs_then",
    ),
    Mutant(
        name="keys: those that a published file has are not read",
        where="flows/adapters/keys.py::read_public_keys",
        takes="*(e for e in earlier if e is not None)",
        puts="",
        fails="tests/faults/test_rotating.py::replaced_by_what_was_published",
    ),
    Mutant(
        name="keys: one is adopted while somebody changes keys",
        where="flows/adapters/keys.py::adopt_next_key",
        takes="with changing_keys(folder): adopt_held(folder, state_of())",
        puts="adopt_held(folder, state_of())",
        fails="tests/faults/test_rotating.py::while_somebody_changes_keys",
    ),
    Mutant(
        name="keys: the newest file has no earlier key",
        where="flows/adapters/keys.py::_with_history",
        takes="c.old_public",
        puts="''",
        fails="tests/faults/test_rotating.py::whatever_files_are_gone",
    ),
    Mutant(
        name="needles: a lost id locks its request",
        where="flows/adapters/local.py::NeedleFiles.read",
        takes="given.get(r, [])",
        puts="given[r]",
        fails="tests/faults/test_beside_the_ledger.py::asking_again",
    ),
    Mutant(
        name="needles: a spelling that a restore lost is not missed",
        where="flows/adapters/local.py::NeedleFiles.read",
        takes=(
            "[r for r, digests in told.items() if not given.get(r) or not set(digests) <= "
            "{self.digest_of(r, i) for i in given[r]}]"
        ),
        puts="[r for r in told if not given.get(r)]",
        fails="tests/faults/test_beside_the_ledger.py::that_a_restore_lost_counts",
    ),
    Mutant(
        name="documents: what is remembered needs no seal",
        where="flows/adapters/memory.py::SealedMemory._read",
        takes="not hmac.compare_digest(seal, self._seal(body).hex().encode())",
        puts="False",
        fails="tests/faults/test_beside_the_ledger.py::only_under_our_seal",
    ),
    Mutant(
        name="release document: a loaded model does not ask",
        where="flows/adapters/served_model.py::Serving._agreed",
        takes="self._check(held.document, version)",
        puts="pass",
        fails="tests/flows/test_release_document.py::erase_run",
    ),
    Mutant(
        name="release document: the registry is believed",
        where="flows/adapters/registry/__init__.py::MlflowRegistry.checked_files",
        takes="check_digest(record, digest_of_files(files), bool(files))",
        puts="",
        fails="tests/flows/test_release_document.py::erase_run",
    ),
    Mutant(
        name="release document: a replay does not look",
        where="flows/adapters/registry/files.py::check_digest",
        takes="digest != record.document",
        puts="False",
        fails="tests/flows/test_release_document.py::erase_run",
    ),
    Mutant(
        name="release document: a training takes it as it is",
        where="flows/adapters/registry/__init__.py::MlflowRegistry._find",
        takes="(p for p in said if files_digest and p.document == files_digest)",
        puts="iter(said)",
        fails="tests/flows/test_release_document.py::training_puts",
    ),
    Mutant(
        name="checkpoint: an older one replaces a newer",
        where="flows/adapters/checkpoints.py::CheckpointFiles.write",
        takes="newest <= checkpoint.head.size",
        puts="True",
        fails="tests/faults/test_checkpoints.py::another_machine",
    ),
    Mutant(
        name="version: what came to the registry is not looked at",
        where="flows/adapters/registry/logged.py::LoggedModels._check_logged",
        takes="(there.get('release.json'), there.get(_CODE.name)) != (document, "
        "_CODE.read_bytes())",
        puts="False",
        fails="tests/flows/test_release_document.py::not_run_by_us",
    ),
    Mutant(
        name="registry: strangers' versions are not told of",
        where="flows/adapters/registry/__init__.py::MlflowRegistry.differences",
        takes="there.keys() - kept.keys()",
        puts="set()",
        fails="tests/flows/test_release_document.py::another_client",
    ),
    Mutant(
        name="version: what a killed command registered is believed",
        where="flows/adapters/registry/__init__.py::MlflowRegistry._find",
        takes="files_digest and p.document == files_digest",
        puts="p.document and files_digest in ('', p.document)",
        fails="tests/flows/test_release_document.py::killed_command",
    ),
    Mutant(
        name="registry: a deleted experiment locks every erasure",
        where="flows/adapters/registry/experiment.py::OwnExperiment._restored",
        takes="self._client.restore_experiment(experiment.experiment_id)",
        puts="pass",
        fails="tests/flows/test_release_document.py::locks_no_erasure",
    ),
    Mutant(
        name="request: a row that no ledger has is acknowledged",
        where="flows/adapters/book.py::_known",
        takes=(
            "row is None or told is None or (not row.suppression == told.suppression == "
            "asked.suppression)"
        ),
        puts="row is None",
        fails="tests/faults/test_beside_the_ledger.py::acknowledged_only",
    ),
    Mutant(
        name="needles: a damaged file stops everybody",
        where="flows/adapters/local.py::NeedleFiles._kept",
        takes="(OSError, ValueError, RecursionError, LookupError, TypeError)",
        puts="OSError",
        fails="tests/faults/test_beside_the_ledger.py::damaged_file",
    ),
    Mutant(
        name="version: what lies beside the release document may change",
        where="flows/adapters/registry/files.py::digest_of_files",
        takes="{name: sha256_hex(files[name]) for name in sorted(files)}",
        puts="{name: sha256_hex(files[name]) for name in sorted(files) if name.endswith('.json')}",
        fails="tests/flows/test_release_document.py::changed_code",
    ),
    Mutant(
        name="version: the registry may name other files",
        where="flows/adapters/registry/__init__.py::MlflowRegistry._check_named",
        takes="not named",
        puts="False",
        fails="tests/flows/test_release_document.py::storage and erase or moved_workspace",
    ),
    Mutant(
        name="version: the alias may name another version",
        where="flows/adapters/registry/__init__.py::MlflowRegistry._check_named",
        takes="self.serving() != record.version",
        puts="False",
        fails="tests/flows/test_release_document.py::another_version",
    ),
    Mutant(
        name="version: one whose files the registry has elsewhere is not healed",
        where="flows/adapters/registry/logged.py::LoggedModels.published",
        takes="same = same and self.is_named_rightly(version, model_id)",
        puts="",
        fails="tests/flows/test_release_document.py::storage",
    ),
    Mutant(
        name="needles: what nobody asked for stays where it looks new",
        where="flows/adapters/local.py::NeedleFiles.prune",
        takes="request_id in kept",
        puts="True",
        fails="tests/faults/test_leftovers.py::never_came",
    ),
    Mutant(
        name="needles: the scan passes over those of nobody",
        where="flows/adapters/local.py::NeedleFiles.files_of",
        takes="asked and asked.keys() <= kept",
        puts="",
        fails="tests/faults/test_leftovers.py::never_came",
    ),
    Mutant(
        name="needles: a folder under the name of one stops everybody",
        where="flows/adapters/local.py::NeedleFiles._keep_only",
        takes="not rest and path.is_dir() and (not path.is_symlink())",
        puts="False",
        fails="tests/faults/test_leftovers.py::under_the_name",
    ),
    Mutant(
        name="needles: what somebody changed is searched for",
        where="flows/adapters/local.py::NeedleFiles._kept",
        takes="found['kept'] if genuine else None",
        puts="found['kept']",
        fails="tests/faults/test_leftovers.py::looks_for",
    ),
    Mutant(
        name="needles: one plan's texts pass for another's",
        where="flows/adapters/local.py::NeedleFiles._gathered",
        takes="self._kept(self.folder / f'{plan_id}.json', plan_id)",
        puts="self._kept(self.folder / f'{plan_id}.json', 'plan-2')",
        fails="tests/faults/test_leftovers.py::texts_that_were",
    ),
    Mutant(
        name="requests: what was written is not looked for",
        where="flows/adapters/tables.py::check_written",
        takes=(
            "any((found.get(row[key], {}).get(name) != value for row in rows for name, "
            "value in row.items()))"
        ),
        puts="False",
        fails="tests/faults/test_beside_the_ledger.py::that_a_table_swallows",
    ),
    Mutant(
        name="ledger: values of another type stop all with a traceback",
        where="flows/adapters/tables.py::check_types",
        takes="tuple(map(type, row)) != _TYPES[table.name]",
        puts="False",
        fails="tests/faults/test_ledger.py::no_entry_of_a_ledger",
    ),
    Mutant(
        name="requests: values of another type stop all with a traceback",
        where="flows/adapters/book.py::_request",
        takes="check_types(row, REQUESTS)",
        puts="",
        fails="tests/faults/test_beside_the_ledger.py::other_types_than_ours",
    ),
    Mutant(
        name="ledger: a beginning that cannot be read stops all with a traceback",
        where="flows/adapters/database.py::SqlLedger.beginning",
        takes="(ValueError, RecursionError)",
        puts="UnicodeError",
        fails="tests/faults/test_ledger.py::no_entry_of_a_ledger",
    ),
    Mutant(
        name="ledger: what was written is not looked for",
        where="flows/adapters/database.py::Database.append",
        takes="there != [(r['seq'], r['leaf'], r['hash'], r['seal']) for r in rows]",
        puts="False",
        fails="tests/faults/test_ledger.py::did_not_come",
    ),
    Mutant(
        name="database: a trigger may swallow what is written",
        where="flows/adapters/database.py::_refuse_diversions",
        takes="found is not None",
        puts="False",
        fails="tests/faults/test_ledger.py::something_else",
    ),
    Mutant(
        name="checkpoint: what is no file stops all with a traceback",
        where="flows/adapters/checkpoints.py::_content",
        takes="OSError",
        puts="FileNotFoundError",
        fails="tests/faults/test_beside_the_ledger.py::no_file_among",
    ),
    Mutant(
        name="documents: what is no file stops all with a traceback",
        where="flows/adapters/memory.py::SealedMemory.digest_of",
        takes="OSError",
        puts="PermissionError",
        fails="tests/faults/test_beside_the_ledger.py::closing_documents_place",
    ),
    Mutant(
        name="serving: a stale model goes on",
        where="flows/adapters/served_model.py::Serving._agreed",
        takes=(
            "if held is not None and held.document.release_id == "
            "version.tags.get('s3t.release'):\n"
            "    if self._pinned or version.version == held.number or held.document.digest "
            "== _vouched(version):\n"
            "        self._check(held.document, version)\n"
            "        return held\n"
            "elif self._pinned:\n"
            "    self._over = self._moved_on()\n"
            "    self._loaded = None\n"
            "    self._remove_brought()\n"
            "    raise self._over"
        ),
        puts=(
            "if held is not None:\n"
            "    return held\n"
            "if False:\n"
            "    if self._pinned or version.version == held.number or held.document.digest "
            "== _vouched(version):\n"
            "        self._check(held.document, version)\n"
            "        return held\n"
            "elif self._pinned:\n"
            "    self._over = self._moved_on()\n"
            "    self._loaded = None\n"
            "    self._remove_brought()\n"
            "    raise self._over"
        ),
        fails="tests/flows/test_served.py::who_asked",
    ),
    Mutant(
        name="serving: one version follows the alias",
        where="flows/adapters/served_model.py::_is_one_version",
        takes="bool(uri)",
        puts="False",
        fails="tests/flows/test_served.py::who_asked",
    ),
    Mutant(
        name="serving: refused for good is asked again",
        where="flows/adapters/served_model.py::Serving._settled",
        takes="if self._over: ...",
        puts="if False: ...",
        fails="tests/flows/test_served.py::who_asked",
    ),
    Mutant(
        name="serving: what is fetched is believed",
        where="flows/adapters/served_model.py::Serving._fetched",
        takes="self._check(document, version)",
        puts="",
        fails="tests/flows/test_served.py::trusting",
    ),
    Mutant(
        name="serving: a fetched document may name another model or release",
        where="flows/adapters/served_model.py::Serving._fetched",
        takes=(
            "(document.release_id, document.serving['name']) != "
            "(version.tags.get('s3t.release'), self._name)"
        ),
        puts="False and (version.tags.get('s3t.release'), self._name)",
        fails="tests/flows/test_served.py::names_another",
    ),
    Mutant(
        name="serving: what was fetched stays in a directory",
        where="flows/adapters/served_model.py::Serving._fetched",
        takes="tempfile.TemporaryDirectory(prefix=_OURS)",
        puts="__import__('contextlib').nullcontext(tempfile.mkdtemp(prefix=_OURS))",
        fails="tests/flows/test_served.py::who_asked",
    ),
    Mutant(
        name="serving: an answer that outlived its release is given",
        where="flows/adapters/served_model.py::Serving.predict",
        takes="still is loaded",
        puts="True",
        fails="tests/unit/adapters/test_served_model.py::outlives",
    ),
    Mutant(
        name="serving: health does not ask the model",
        where="flows/adapters/served_model.py::_put_health.health",
        takes="503 if refusal else 200",
        puts="200",
        fails="tests/flows/test_served.py::mlflows_server",
    ),
    Mutant(
        name="serving: a refusal quotes what was asked",
        where="flows/adapters/served_model.py::_Told",
        takes=("@message.setter\ndef message(self, _: str) -> None:\n    pass"),
        puts=("@message.setter\ndef message(self, said: str) -> None:\n    self._sentence = said"),
        fails="tests/unit/adapters/test_served_model.py::sentence_of_a_refusal",
    ),
    Mutant(
        name="loading: a living process loses its directory",
        where="flows/adapters/loading.py::_locked",
        takes="fcntl.flock(descriptor, kind)",
        puts="",
        fails="tests/faults/test_loading.py::stays_until_it_dies",
    ),
    Mutant(
        name="loading: the sweep comes between making and locking",
        where="flows/adapters/loading.py::folder_in_use",
        takes="held and os.path.lexists(name)",
        puts="True",
        fails="tests/faults/test_loading.py::took_between_making_and_locking",
    ),
    Mutant(
        name="loading: what a link leads to",
        where="flows/adapters/loading.py::sweep_unused",
        takes="path.is_symlink() or not path.is_dir()",
        puts="not path.is_dir()",
        fails="tests/faults/test_loading.py::link_goes",
    ),
    Mutant(
        name="registry: an experiment is found by its name",
        where="flows/adapters/registry/experiment.py::OwnExperiment.there",
        takes="self._recorded(record)",
        puts="None",
        fails="tests/flows/test_registry_ids.py::somebody_renamed",
    ),
    Mutant(
        name="registry: a number that was given anew is ours",
        where="flows/adapters/registry/experiment.py::OwnExperiment._recorded",
        takes="found is None or found.creation_time != record.created",
        puts="found is None",
        fails="tests/flows/test_registry_ids.py::given_anew",
    ),
    Mutant(
        name="registry: an experiment with runs of others is taken",
        where="flows/adapters/registry/experiment.py::OwnExperiment._check_adoptable",
        takes="not self._is_empty(experiment)",
        puts="False",
        fails="tests/flows/test_registry_ids.py::before_the_first_training_is_not_taken",
    ),
    Mutant(
        name="registry: a registered model of others is taken",
        where="flows/adapters/registry/experiment.py::OwnExperiment._begun",
        takes="self._others()",
        puts="False",
        fails="tests/flows/test_registry_ids.py::registered_model_that_was_there",
    ),
    Mutant(
        name="registry: a changed owner tag stays",
        where="flows/adapters/registry/experiment.py::OwnExperiment._tagged",
        takes="self._client.set_experiment_tag(experiment.experiment_id, OWNER_TAG, self._owner)",
        puts="pass",
        fails="tests/flows/test_registry_ids.py::put_back",
    ),
    Mutant(
        name="registry: a changed name stays",
        where="flows/adapters/registry/experiment.py::OwnExperiment._renamed",
        takes="self._client.rename_experiment(experiment.experiment_id, self._name)",
        puts="pass",
        fails="tests/flows/test_registry_ids.py::somebody_renamed",
    ),
    Mutant(
        name="destroy: runs are chosen by their tags",
        where="flows/adapters/registry/runs.py::Runs.delete",
        takes="run.info.run_id not in keep",
        puts="run.info.run_id not in keep and STAGE_TAG in run.data.tags",
        fails="tests/flows/test_registry_ids.py::whatever_their_tags",
    ),
    Mutant(
        name="destroy: versions under another name stay",
        where="flows/adapters/registry/runs.py::Runs.delete",
        takes="self._versions.delete_of_runs([*doomed, *trash])",
        puts="",
        fails="tests/flows/test_registry_ids.py::leaves_no_row",
    ),
    Mutant(
        name="registry: what others log at our place stays",
        where="flows/adapters/registry/workspace_files.py::WorkspaceFiles.remove_leftovers",
        takes="p.name != models.name",
        puts="False",
        fails="tests/flows/test_registry_ids.py::locks_no_erasure",
    ),
    Mutant(
        name="registry: a stage of nobody's in a kept version stays",
        where="flows/adapters/registry/files.py::is_part",
        takes="parts[-1].removesuffix(STAGE_FILE) in kept[parts[1]]",
        puts="True",
        fails="tests/flows/test_registry_ids.py::locks_no_erasure",
    ),
    Mutant(
        name="registry: a hidden version stays hidden",
        where="flows/adapters/registry/versions.py::Versions.unhide",
        takes="registry.delete_model_version_tag(self._name, version, _PROMPT)",
        puts="pass",
        fails="tests/flows/test_registry_ids.py::as_a_prompt",
    ),
    Mutant(
        name="registry: a hidden registered model stays hidden",
        where="flows/adapters/registry/versions.py::Versions.unhide",
        takes="registry.delete_registered_model_tag(self._name, _PROMPT)",
        puts="pass",
        fails="tests/flows/test_registry_ids.py::as_a_prompt",
    ),
    Mutant(
        name="erase: nobody is told that another version serves",
        where="flows/use_cases/reconciling.py::unserved",
        takes="workspace.registry.serving() == champion.version",
        puts="True",
        fails="tests/flows/test_registry_ids.py::says_so",
    ),
    Mutant(
        name="servers: an experiment whose files lie elsewhere is taken",
        where="flows/adapters/registry/server.py::ServerPlace.check_expected",
        takes="place != f'{self._destination}/{experiment.experiment_id}'",
        puts="False",
        fails="tests/stack/test_strangers.py::made_for_us",
    ),
    Mutant(
        name="servers: rows of logged models that somebody deleted stay",
        where="flows/adapters/registry/server.py::ServerFiles.collect",
        takes="[*models, *self.deleted_models()]",
        puts="models",
        fails="tests/stack/test_strangers.py::renames_deletes",
    ),
)
