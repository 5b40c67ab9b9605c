"""Data and its versions: sources, DVC, git, places."""

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="places: only the cache of who runs it is known",
        where="flows/adapters/dvc_repository.py::DvcRepository.caches",
        takes="*(self.root / name / _OBJECTS for name in (DEFAULT_CACHE, *self._recorded()))",
        puts="",
        fails="tests/flows/test_dvcs_places.py::another_users",
    ),
    Mutant(
        name="places: versions go where DVC's configuration says",
        where="flows/adapters/dvc_repository.py::DvcRepository.opened",
        takes="self._overriding()",
        puts="{}",
        fails="tests/flows/test_dvcs_places.py::settings_say",
    ),
    Mutant(
        name="residue: a user's remotes are this repository's",
        where="flows/adapters/dvc_repository.py::DvcRepository.own_remotes",
        takes="('repo', 'local')",
        puts="('global', 'repo', 'local')",
        fails="tests/faults/test_leftovers.py::left_as_they_are",
    ),
    Mutant(
        name="git: the shell says which repository",
        where="flows/adapters/git.py::git_environment",
        takes="name not in REDIRECTING",
        puts="name or REDIRECTING",
        fails="tests/unit/test_git_residue.py::redirects",
    ),
    Mutant(
        name="residue: packs that git cannot read are passed over",
        where="flows/adapters/git.py::git_objects",
        takes="raise _unreadable()",
        puts="",
        fails="tests/unit/test_git_residue.py::cannot_read_whole",
    ),
    Mutant(
        name="quarantine: one record takes all of its subject",
        where="flows/adapters/matching.py::Matcher.requests_of",
        takes="t.matches(subject, record) or not record",
        puts="",
        fails="tests/flows/test_walk.py::others_stay_there",
    ),
    Mutant(
        name="modes: DVC's objects are everybody's",
        where="flows/adapters/dvc_repository.py::DvcRepository.opened",
        takes="LocalHashFileDB.CACHE_MODE = OBJECT_MODE",
        puts="",
        fails="tests/flows/test_half_written.py::owners_alone",
    ),
    Mutant(
        name="apart: nobody looks where a directory that is a link leads",
        where="flows/workspace/access.py::check_footing",
        takes="check_apart(workspace.root, *places)",
        puts="",
        fails="tests/faults/test_apart.py::nothing_is_lost and tmp and keys",
    ),
    Mutant(
        name="apart: a place within one of ours is another",
        where="flows/adapters/footing.py::_touch",
        takes="one.is_relative_to(other) or other.is_relative_to(one)",
        puts="one == other",
        fails="tests/faults/test_apart.py::two_links or nothing_is_lost and within",
    ),
    Mutant(
        name="apart: another workspace's place may be emptied",
        where="flows/adapters/footing.py::_touches_workspace",
        takes="any(((p / _WORKSPACE).is_dir() for p in places))",
        puts="False",
        fails="tests/faults/test_apart.py::nothing_is_lost and other",
    ),
    Mutant(
        name="schedules: what was planned far ahead stays",
        where="flows/supervisor/schedules.py::take_out_far_runs",
        takes="wanted is not None and times and (min(times) > wanted)",
        puts="False",
        fails="tests/flows/test_schedules.py::are_taken_out",
    ),
    Mutant(
        name="schedules: a run that somebody asked for goes with them",
        where="flows/supervisor/schedules.py::_planned",
        takes="[run for run in found if run.auto_scheduled]",
        puts="list(found)",
        fails="tests/flows/test_schedules.py::somebody_asked",
    ),
    Mutant(
        name="watch: time to come is lately",
        where="flows/supervisor/watching.py::_from_now",
        takes="abs(datetime.now(UTC) - at)",
        puts="datetime.now(UTC) - at",
        fails="tests/flows/test_schedules.py::time_to_come",
    ),
    Mutant(
        name="a data file may be a link to elsewhere",
        where="flows/adapters/footing.py::refuse_link",
        takes="path.is_symlink()",
        puts="False",
        fails="tests/flows/test_nothing_left.py::is_a_link",
    ),
    Mutant(
        name="only the default remote is cleaned",
        where="flows/adapters/dvc_repository.py::DvcRepository.stores_of",
        takes="*(repo.cloud.get_remote_odb(name) for name in repo.config['remote'])",
        puts="repo.cloud.get_remote_odb()",
        fails="tests/flows/test_nothing_left.py::every_remote",
    ),
    Mutant(
        name="a place that lost its mark is marked again",
        where="flows/adapters/marks.py::claim_place",
        takes="not begins",
        puts="False",
        fails="tests/flows/test_ingest.py::lost_its_mark",
    ),
    Mutant(
        name="ingest: whatever lies in data is removed",
        where="flows/adapters/datasets.py::DvcDatasets.replace",
        takes="self._check_ours()",
        puts="",
        fails="tests/flows/test_ingest.py::somebody_elses",
    ),
    Mutant(
        name="ids: what is no text is written as JSON",
        where="flows/adapters/sources/cells.py::columns_of",
        takes="id_text",
        puts="lambda v: json.dumps(v, default=str)",
        fails="tests/unit/test_identity.py::parquet_ids or json_ids",
    ),
    Mutant(
        name="ingest: a row beside a malformed one loses its place",
        where="flows/adapters/sources/delimited.py::_Rows.take",
        takes="rows.append(row)",
        puts="rows += [row] if len(row) == width else []",
        fails="tests/unit/test_sources.py::keeps_its_place",
    ),
    Mutant(
        name="buckets: a remote keeps what was destroyed",
        where="flows/adapters/datasets.py::DvcDatasets.destroy",
        takes="self.repository.remotes()",
        puts="[]",
        fails="tests/stack/test_s3.py::whoever_configured",
    ),
    Mutant(
        name="places: one within another's is claimed",
        where="flows/adapters/marks.py::claim_place",
        takes="any((True for _ in _marks_beside(blobs))) or _in_workspace(blobs, is_workspace)",
        puts="_in_workspace(blobs, is_workspace)",
        fails="tests/unit/test_marks.py::within_or_around",
    ),
    Mutant(
        name="places: one in another workspace's directory is claimed",
        where="flows/adapters/marks.py::claim_place",
        takes="any((True for _ in _marks_beside(blobs))) or _in_workspace(blobs, is_workspace)",
        puts="any((True for _ in _marks_beside(blobs)))",
        fails="tests/unit/test_marks.py::another_workspaces_own",
    ),
    Mutant(
        name="erasure: whatever lies in data becomes the data",
        where="flows/adapters/datasets.py::DvcDatasets.erase",
        takes="self._check_rewritten(path, stored.get(version.md5), match, folder / "
        "'made.parquet')",
        puts="pass",
        fails="tests/flows/test_cut_off.py::lies_in_data and labels",
    ),
    Mutant(
        name="erasure: another index is gone on from",
        where="flows/adapters/datasets.py::DvcDatasets._erased_index",
        takes="stored.get(dataset.identities.md5, path)",
        puts="path",
        fails="tests/flows/test_cut_off.py::lies_in_data and index",
    ),
    Mutant(
        name="data: whatever data.dvc names is published",
        where="flows/adapters/datasets.py::DvcDatasets.publish",
        takes="self._check_named(dataset)",
        puts="",
        fails="tests/flows/test_migrating.py::was_interrupted",
    ),
    Mutant(
        name="check: UTF-16 without its mark is taken for cp1252",
        where="flows/adapters/sources/text.py::likely_encoding",
        takes="_unmarked_utf16(text)",
        puts="''",
        fails="tests/unit/test_checking.py::without_a_mark",
    ),
    Mutant(
        name="files: a delimiter by chance makes an alarm",
        where="flows/adapters/sources/delimited.py::DelimitedTable.check_swallowed",
        takes="all(ends)",
        puts="any(ends)",
        fails="tests/unit/test_cases.py::by_chance",
    ),
    Mutant(
        name="files: escaped quotes are not told",
        where="flows/adapters/sources/delimited.py::DelimitedTable.blocks",
        takes="self._misquoted and self._escapes",
        puts="False",
        fails="tests/unit/test_cases.py::backslash",
    ),
    Mutant(
        name="files: the texts' column is called the subject's",
        where="flows/adapters/sources/source.py::Source.__init__",
        takes="{config.subject: 'subject', config.label: 'label', config.text: 'text'}",
        puts="{config.text: 'text', config.label: 'label', config.subject: 'subject'}",
        fails="tests/unit/test_cases.py::only_the_texts",
    ),
    Mutant(
        name="servers: another workspace's store is taken",
        where="flows/adapters/marks.py::claim_place",
        takes="mark is not None",
        puts="False",
        fails="tests/stack/test_walk.py::left_alone",
    ),
    Mutant(
        name="Dask: what a killed worker fetched stays",
        where="flows/adapters/places.py::look",
        takes="remove_tree(folder)",
        puts="pass",
        fails="tests/stack/test_dask.py::killed_worker_fetched",
    ),
    Mutant(
        name="Dask: an empty directory is taken for the disk that was there",
        where="flows/adapters/places.py::here",
        takes="secret_of(folder / f's3t-place-{os.getuid()}')",
        puts="''",
        fails="tests/unit/test_places.py::empty_directory",
    ),
    Mutant(
        name="Dask: a process is told by its number alone",
        where="flows/adapters/places.py::_lives",
        takes="int(there.create_time()) == began and there.status() != psutil.STATUS_ZOMBIE",
        puts="there.status() != psutil.STATUS_ZOMBIE",
        fails="tests/unit/test_places.py::the_dead_left",
    ),
    Mutant(
        name="words: the code's own are not known",
        where="flows/adapters/baseline.py::Baseline.__iter__",
        takes="constants()",
        puts="",
        fails="tests/faults/test_words.py::before_the_first_certificate",
    ),
    Mutant(
        name="words: the ledger is not read",
        where="flows/adapters/baseline.py::Baseline.__iter__",
        takes="self.ledger.entries()",
        puts="[]",
        fails="tests/faults/test_words.py::nothing_that_the_system_wrote",
    ),
    Mutant(
        name="words: an older ledger's free text hides a person",
        where="flows/adapters/baseline.py::_quotes",
        takes="any((erased.told_in(text.encode()) for text in _free_text(value)))",
        puts="False",
        fails="tests/faults/test_words.py::not_certified_in_silence",
    ),
    Mutant(
        name="scan: everybody is known",
        where="flows/adapters/known_subjects.py::KnownSubjects.__call__",
        takes="subject in self._present or subject in self._earlier",
        puts="True",
        fails="tests/flows/test_people.py::stops_the_certificate",
    ),
    Mutant(
        name="scan: who is in an earlier version alone is nobody",
        where="flows/adapters/known_subjects.py::KnownSubjects.__call__",
        takes="subject in self._present or subject in self._earlier",
        puts="subject in self._present",
        fails="tests/flows/test_people.py::stops_the_certificate",
    ),
    Mutant(
        name="quarantine: a line says whose it is, whoever wrote it",
        where="flows/adapters/quarantine.py::Quarantine._read",
        takes="_row_of(value) if genuine else None",
        puts="_row_of(value)",
        fails="tests/flows/test_ingest.py::relabelled",
    ),
    Mutant(
        name="destroy: a copy that is still written is damage",
        where="flows/adapters/datasets.py::DvcDatasets.destroy",
        takes="not is_half_written(p.name)",
        puts="",
        fails="tests/flows/test_half_written.py::living_process",
    ),
    Mutant(
        name="people: earlier data that names people otherwise is searched like any",
        where="flows/adapters/datasets.py::DvcDatasets.find",
        takes="d.says_who_as(history[-1])",
        puts="",
        fails="tests/flows/test_people.py::names_people_otherwise",
    ),
    Mutant(
        name="people: quarantine is not asked by hash",
        where="flows/adapters/datasets.py::DvcDatasets.resolve",
        takes="known & wanted",
        puts="set[str]()",
        fails="tests/flows/test_people.py::quarantined_is_found_by_hash",
    ),
    Mutant(
        name="people: the index is not erased",
        where="flows/adapters/datasets.py::DvcDatasets._erased_index",
        takes=(
            "self._write_index(path, stored.get(dataset.identities.md5, path), rows, "
            "history, destroyed)"
        ),
        puts="",
        fails="tests/flows/test_people.py::erased_with_the_person",
    ),
    Mutant(
        name="people: whose rows go with an erasure stays in the index",
        where="flows/adapters/datasets.py::DvcDatasets.earlier_subjects",
        takes=(
            "{v.md5 for d in history[:-1] if d.says_who_as(history[-1]) for v in "
            "d.row_files()} - destroyed"
        ),
        puts="{v.md5 for d in history[:-1] if d.says_who_as(history[-1]) for v in d.row_files()}",
        fails="tests/flows/test_stored.py::went_with_another_persons",
    ),
    Mutant(
        name="people: of whom no index tells, no hash is of",
        where="flows/adapters/datasets.py::DvcDatasets.find",
        takes="self._named(history, stored) if by_hash else None",
        puts="None",
        fails="tests/flows/test_stored.py::of_whom_no_index_tells",
    ),
    Mutant(
        name="people: the index is not made again",
        where="flows/adapters/datasets.py::DvcDatasets.put_back",
        takes="sources[IDENTITY_PATH] = self._rebuilt_index(sources, folder, history, destroyed)",
        puts="pass",
        fails="tests/flows/test_stored.py::is_made_again",
    ),
    Mutant(
        name="stored: what the remote has lost is taken for pushed",
        where="flows/adapters/datasets.py::DvcDatasets.publish",
        takes="remote.add(cache.oid_to_path(md5), cache.fs, md5)",
        puts="pass",
        fails="tests/flows/test_stored.py::is_pushed_again",
    ),
    Mutant(
        name="people: earlier indexes stay",
        where="flows/adapters/datasets.py::DvcDatasets.find",
        takes="objects.add(identities.md5)",
        puts="pass",
        fails="tests/flows/test_people.py::remote_alone_keeps",
    ),
    Mutant(
        name="people: any index is asked",
        where="flows/adapters/datasets.py::DvcDatasets._indexes",
        takes="self._current_file(IDENTITY_PATH, dataset.identities)",
        puts="self.data / IDENTITY_PATH",
        fails="tests/flows/test_people.py::another_index_than",
    ),
    Mutant(
        name="files: an unclosed quote swallows what follows",
        where="flows/adapters/sources/delimited.py::_Rows._misquoted",
        takes="not unclosed and last <= first",
        puts="True",
        fails="tests/unit/test_cases.py::unclosed_quote_is_told",
    ),
    Mutant(
        name="files: a cell that holds other people's rows is a text",
        where="flows/adapters/sources/delimited.py::_Rows.take",
        takes="self._table.check_swallowed(row, before + 1 + self._skip)",
        puts="pass",
        fails="tests/unit/test_cases.py::unclosed_quote_is_told",
    ),
    Mutant(
        name="files: of two columns of one name the first is taken",
        where="flows/adapters/sources/delimited.py::DelimitedTable.repeated",
        takes="[c for c in columns if counts[c] > 1]",
        puts="[]",
        fails="tests/unit/test_cases.py::not_read_is_refused",
    ),
    Mutant(
        name="files: a label means the first of two that fit",
        where="flows/adapters/sources/labels.py::Meanings._one",
        takes="len(fitting) == 1",
        puts="fitting",
        fails="tests/unit/test_cases.py::one_and_only_one",
    ),
    Mutant(
        name="files: a file that was cut is read as far as it goes",
        where="flows/adapters/sources/lines.py::_elements",
        takes="raise _not_an_array(number, 'something that is no JSON, or was cut,') from None",
        puts="return",
        fails="tests/unit/test_cases.py::was_cut_is_refused",
    ),
    Mutant(
        name="files: the same file counts twice",
        where="flows/adapters/sources/parts.py::parts_of",
        takes="len(distinct) < len(parts)",
        puts="False",
        fails="tests/unit/test_cases.py::cannot_be_meant",
    ),
    Mutant(
        name="files: a first row that is no header is shown",
        where="flows/adapters/sources/delimited.py::DelimitedTable.names",
        takes=(
            "[] if self._is_a_row() or self._lines_above() > 1 else shown([*self.header, "
            "*self._part.constants])"
        ),
        puts="shown([*self.header, *self._part.constants])",
        fails="tests/unit/test_checking.py::no_text_and_no_id",
    ),
    Mutant(
        name="files: whatever stands in the column of labels is shown",
        where="flows/adapters/sources/labels.py::Undeclared._may_be_shown",
        takes="bool(likely) and self._only.get(value, '') is None",
        puts="True",
        fails="tests/unit/test_checking.py::no_text_and_no_id or misspelt_label",
    ),
    Mutant(
        name="files: a chat is a text",
        where="flows/adapters/sources/source.py::Source._blocks",
        takes="_refuse_chats(block, config.text)",
        puts="",
        fails="tests/unit/test_cases.py::chat_that_was_written",
    ),
    Mutant(
        name="files: a key that stands twice has its last value",
        where="flows/adapters/sources/cells.py::once",
        takes="found if len(found) == len(pairs) else Repeated(found)",
        puts="found",
        fails="tests/unit/test_cases.py::stands_twice",
    ),
    Mutant(
        name="files: labels of which none is declared are found out late",
        where="flows/adapters/sources/preflight.py::_read",
        takes="rows and (not declared) and undeclared",
        puts="False",
        fails="tests/unit/test_cases.py::none_is_declared",
    ),
    Mutant(
        name="ids: a float of few bits is taken for one number",
        where="flows/adapters/sources/columnar.py::_values",
        takes=(
            "[narrow(v) if isinstance(v, SupportsFloat) else v for v in values] if narrow "
            "else values"
        ),
        puts=(
            "[narrow(v) if isinstance(v, SupportsFloat) else v for v in values] if False "
            "else values"
        ),
        fails="tests/unit/test_identity.py::float_makes_one",
    ),
    Mutant(
        name="a source: a cell that cannot be read ends the ingest",
        where="flows/adapters/sources/columnar.py::_values",
        takes="values = [_value(cell) for cell in array]",
        puts="raise",
        fails="tests/unit/test_identity.py::its_row_alone",
    ),
    Mutant(
        name="ingest: the ids as given stand where a text may",
        where="flows/adapters/sources/cells.py",
        takes="'\\x00given'",
        puts="'given'",
        fails="tests/flows/test_ingest.py::any_name",
    ),
    Mutant(
        name="ingest: a column of lengths stands where a text may",
        where="flows/adapters/validation.py",
        takes="'\\x00subject_bytes'",
        puts="'subject_bytes'",
        fails="tests/flows/test_ingest.py::any_name",
    ),
    Mutant(
        name="stored: an earlier file of the cache is taken on trust",
        where="flows/adapters/datasets.py::DvcDatasets._earlier_files",
        takes="_is_whole(self._in_cache(md5), md5)",
        puts="self._in_cache(md5).exists()",
        fails="tests/flows/test_stored.py::turns_no_hash_at_somebody_else",
    ),
    Mutant(
        name="stored: what a remote gives is taken on trust",
        where="flows/adapters/datasets.py::DvcDatasets._fetched",
        takes="_is_whole(folder / md5, md5)",
        puts="(folder / md5).exists()",
        fails="tests/flows/test_stored.py::whole_nowhere_tells_nothing",
    ),
    Mutant(
        name="stored: rows that the remote alone has are not read",
        where="flows/adapters/datasets.py::DvcDatasets._fetched",
        takes="self.repository.stores_of(repo)[1:]",
        puts="()",
        fails="tests/flows/test_stored.py::in_the_remote_alone",
    ),
    Mutant(
        name="stored: an index that is nowhere names nobody",
        where="flows/adapters/datasets.py::DvcDatasets._indexes",
        takes=(
            "if md5 not in found:\n"
            "    raise DataError(f'expected the index of who was in an earlier data "
            "version, got none that is whole, neither in the cache nor in a remote, so "
            "nobody can say whether somebody was in it; bring {object_name(md5)} back from "
            "a backup of either, or ask by the id itself: that erasure destroys what "
            "cannot be read')"
        ),
        puts=(
            "if md5 not in found:\n"
            "    continue\n"
            "if 0:\n"
            "    raise DataError(f'expected the index of who was in an earlier data "
            "version, got none that is whole, neither in the cache nor in a remote, so "
            "nobody can say whether somebody was in it; bring {object_name(md5)} back from "
            "a backup of either, or ask by the id itself: that erasure destroys what "
            "cannot be read')"
        ),
        fails="tests/flows/test_stored.py::whole_nowhere_tells_nothing",
    ),
    Mutant(
        name="stored: a damaged object locks the erasure that is open",
        where="flows/adapters/datasets.py::DvcDatasets.destroy",
        takes=(
            "_is_parquet(p) and (not _is_whole(p, md5_named(p))) and (not is_half_written(p.name))"
        ),
        puts="False and (not is_half_written(p.name))",
        fails="tests/flows/test_stored.py::damaged_while_an_erasure_is_open",
    ),
    Mutant(
        name="stored: older files take the place before all are there",
        where="flows/adapters/datasets.py::DvcDatasets.put_back",
        takes="if lost: ...",
        puts="if False: ...",
        fails="tests/flows/test_stored.py::cannot_be_put_right_stay",
    ),
    Mutant(
        name="footing: an eraser looks at nothing itself",
        where="flows/adapters/datasets.py::DvcDatasets.find",
        takes="self.check_footing()",
        puts="",
        fails="tests/faults/test_footing.py::looks_for_links_itself and quarantine",
    ),
    Mutant(
        name="footing: a link is a file",
        where="flows/adapters/footing.py::_check",
        takes="is_link and (not may_link(path))",
        puts="False",
        fails="tests/faults/test_footing.py::in_the_place_of_what and quarantine",
    ),
    Mutant(
        name="footing: any directory may be a link",
        where="flows/adapters/footing.py::_odd_ones",
        takes="not folders.fullmatch(entry.name) or not Path(leads).is_dir()",
        puts="not Path(leads).is_dir()",
        fails="tests/faults/test_footing.py::in_the_place_of_what and directory and models",
    ),
    Mutant(
        name="footing: no directory may be a link",
        where="flows/adapters/footing.py::check_objects",
        takes="_(folders=_OBJECTS)",
        puts="",
        fails="tests/faults/test_footing.py::on_another_disk_work",
    ),
    Mutant(
        name="footing: data leads to any object",
        where="flows/adapters/datasets.py::DvcDatasets._leads_to_object",
        takes=(
            "any((not path.is_symlink() and os.path.realpath(path) == str(found) for path "
            "in there))"
        ),
        puts="True",
        fails="tests/faults/test_footing.py::object_of_the_cache_alone",
    ),
    Mutant(
        name="footing: an object that is a link is destroyed as one",
        where="flows/adapters/datasets.py::DvcDatasets.destroy",
        takes="refuse_link(Path(store.oid_to_path(md5)), self.root)",
        puts="pass",
        fails="tests/faults/test_footing.py::not_destroyed_as_one",
    ),
    Mutant(
        name="footing: a pipe is a file",
        where="flows/adapters/footing.py::_check_opened",
        takes="if kind: ...",
        puts="if False: ...",
        fails="tests/faults/test_footing.py::other_things",
    ),
    Mutant(
        name="footing: git's own socket stops",
        where="flows/adapters/footing.py::_check",
        takes="not (sockets and path.is_socket())",
        puts="",
        fails="tests/faults/test_footing.py::others_keep_beside",
    ),
    Mutant(
        name="footing: git is waited for",
        where="flows/adapters/git.py::run_git",
        takes="_(timeout=patience)",
        puts="_(timeout=30)",
        fails="tests/faults/test_footing.py::so_long_and_ended",
    ),
    Mutant(
        name="footing: what git started lives on",
        where="flows/adapters/git.py::_end",
        takes="os.killpg(git.pid, signal.SIGKILL)",
        puts="git.kill()",
        fails="tests/faults/test_footing.py::so_long_and_ended",
    ),
    Mutant(
        name="footing: what is no file of data is a traceback",
        where="flows/adapters/datasets.py::_md5_of",
        takes="OSError",
        puts="KeyError",
        fails="tests/faults/test_footing.py::request_is_taken and identities",
    ),
    Mutant(
        name="footing: what a killed ingest left stays",
        where="flows/adapters/datasets.py::DvcDatasets.find",
        takes="objects |= self._unrecorded(history)",
        puts="",
        fails="tests/faults/test_footing.py::ours_alone",
    ),
    Mutant(
        name="footing: what is in a shared cache is ours",
        where="flows/adapters/datasets.py::DvcDatasets._unrecorded",
        takes="place.resolve().is_relative_to(root)",
        puts="",
        fails="tests/faults/test_footing.py::ours_alone",
    ),
    Mutant(
        name="no file: the quarantine is waited for",
        where="flows/adapters/quarantine.py::Quarantine.lines",
        takes="read_regular(self._path)",
        puts="self._path.read_bytes()",
        fails="tests/faults/test_leftovers.py::quarantine_that_is_no_file",
    ),
    Mutant(
        name="no file: a pipe in the cache is waited for",
        where="flows/adapters/datasets.py::_is_parquet",
        takes="open_regular(path)",
        puts="path.open('rb')",
        fails="tests/faults/test_leftovers.py::no_file_in_the_cache",
    ),
    Mutant(
        name="no file: a pipe in the cache is an object",
        where="flows/adapters/dvc_repository.py::objects_in",
        takes="p.suffix != '.dir' and p.is_file()",
        puts="p.suffix != '.dir'",
        fails="tests/faults/test_leftovers.py::no_file_in_the_cache",
    ),
)
