"""The ledger, its rules, planning, erasing, evidence."""

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="6: planning from the first release",
        where="s3t_core/erasure/planner.py::plan_erasure",
        takes="state.release.replicas",
        puts="state.versions[0].release.replicas",
        fails="tests/unit/test_executor.py::hazard_6_the_planner",
    ),
    Mutant(
        name="12: the old version stays",
        where="s3t_core/erasure/planner.py::_versions_to_destroy",
        takes="version.release.stage_keys() & tainted or (expired and (not serves))",
        puts="expired and (not serves)",
        fails="tests/unit/test_executor.py::silences_exactly",
    ),
    Mutant(
        name="deactivation: one stage too few",
        where="s3t_core/erasure/planner.py::plan_erasure",
        takes="s.slice_digests",
        puts="s.slice_digests[1:]",
        fails="tests/unit/test_executor.py::silences_exactly",
    ),
    Mutant(
        name="envelope: spelling is not checked",
        where="s3t_core/erasure/dsse.py::verify_signed",
        takes=(
            "not canonical or canonical_json(_envelope(payload, signature['keyid'], raw)) "
            "!= envelope"
        ),
        puts="False",
        fails="tests/unit/test_evidence.py::any_changed_byte",
    ),
    Mutant(
        name="scan: who is certified and nobody is looked for again",
        where="s3t_core/erasure/state.py::State.sought",
        takes="r not in of_nobody",
        puts="of_nobody is not None",
        fails="tests/unit/test_executor.py::stops_no_other_after_a_crash",
    ),
    Mutant(
        name="scan: who is certified is looked for no more",
        where="s3t_core/erasure/state.py::State.sought",
        takes="not RowCounts(**rows[r]).known",
        puts="rows[r]",
        fails="tests/unit/test_executor.py::stops_no_other_after_a_crash",
    ),
    Mutant(
        name="certificate: an id that is a usual word was searched for",
        where="s3t_core/erasure/certificate.py::_found",
        takes="{*scan['ids_lost'], *scan.get('ids_unsearchable', ())}",
        puts="scan['ids_lost']",
        fails="tests/faults/test_words.py::certified_and_keep_nobody",
    ),
    Mutant(
        name="scan: residue does not stop",
        where="s3t_core/erasure/executor.py::Eraser._looked",
        takes="report.residue",
        puts="False",
        fails="tests/unit/test_executor.py::residue_stops",
    ),
    Mutant(
        name="crash: the plan is not written ahead",
        where="s3t_core/erasure/executor.py::Eraser.plan",
        takes=(
            "self.ports.ledger.append({'type': 'planned', 'time': plan.time, 'plan': "
            "plan_to_json(plan)})"
        ),
        puts="",
        fails="tests/unit/test_executor.py::silences_exactly",
    ),
    Mutant(
        name="plan: damaged stages are counted on",
        where="s3t_core/erasure/executor.py::Eraser._servable_plan",
        takes="damaged |= broken",
        puts="return plan",
        fails="tests/unit/test_executor.py::damaged_clean",
    ),
    Mutant(
        name="cut-over: only the present staleness",
        where="s3t_core/erasure/executor.py::Eraser._staleness",
        takes="max([self.policy.staleness_seconds, *(v.staleness for v in state.versions)])",
        puts="self.policy.staleness_seconds",
        fails="tests/unit/test_executor.py::most_trusting",
    ),
    Mutant(
        name="crash: the orphan artifact stays",
        where="s3t_core/erasure/executor.py::Eraser._destroy",
        takes="digest not in known",
        puts="digest in {s.digest for s in plan.deactivated}",
        fails="tests/unit/test_executor.py::silences_exactly",
    ),
    Mutant(
        name="clock: a report counts over a correction",
        where="s3t_core/erasure/report.py::_Seen._clock",
        takes="asked.between |= asked.closed is None",
        puts="",
        fails="tests/unit/test_report.py::put_right_in_between",
    ),
    Mutant(
        name="clock: a report counts to a cut-over by a wrong clock",
        where="s3t_core/erasure/report.py::_Seen._clock",
        takes="moved > event['time'] if moved else asked.closed is None",
        puts="False",
        fails="tests/unit/test_report.py::put_right_in_between",
    ),
    Mutant(
        name="clock: a certificate says nothing of its correction",
        where="s3t_core/erasure/certificate.py::_is_corrected",
        takes="state.corrected != state.corrected_before_plan or back > CLOCK_TOLERANCE",
        puts="False",
        fails="tests/unit/test_report.py::put_right_in_between",
    ),
    Mutant(
        name="bundle: a payload that readers read in two ways",
        where="s3t_core/erasure/offline.py::_statement",
        takes="_canonical(statement) != payload",
        puts="",
        fails="tests/unit/test_bundle.py::two_ways",
    ),
    Mutant(
        name="certificate: false is no finding",
        where="s3t_core/erasure/certificate.py::check_statement",
        takes="type(residue) is not int or residue != 0",
        puts="residue != 0",
        fails="tests/unit/test_bundle.py::two_ways",
    ),
    Mutant(
        name="first: the replacement may keep what is to be erased",
        where="s3t_core/erasure/executor.py::Eraser._with_replacement",
        takes="found is None or found[0].stage_keys() & {s.key for s in plan.deactivated}",
        puts="found is None",
        fails="tests/unit/test_executor.py::replacement",
    ),
    Mutant(
        name="first: what a killed run had trained stays",
        where="s3t_core/erasure/executor.py::Eraser._destroy",
        takes="{s.key for s in plan.deactivated} | _unaccounted(state)",
        puts="{s.key for s in plan.deactivated}",
        fails="tests/unit/test_executor.py::never_was_the_data",
    ),
    Mutant(
        name="first: a stage on content that is destroyed stays",
        where="s3t_core/erasure/executor.py::_unaccounted",
        takes="v.md5 not in state.destroyed_objects",
        puts="",
        fails="tests/unit/test_executor.py::whose_file_is_destroyed",
    ),
    Mutant(
        name="checkpoint: only the newest entries are held against it",
        where="s3t_core/erasure/checkpoint.py::check_continues",
        takes="tree_head(leaves[:size]).hex() != checkpoint.head.root",
        puts="False",
        fails="tests/faults/test_checkpoints.py::rewritten_with_hashes",
    ),
    Mutant(
        name="bundle: a closing entry need not be in the ledger",
        where="s3t_core/erasure/offline.py::_check_certificate",
        takes=(
            "not includes(root, size, proof['index'], _leaf(closing), _hashes(proof['inclusion']))"
        ),
        puts="False",
        fails="tests/unit/test_bundle.py::value_of_a_proof",
    ),
    Mutant(
        name="bundle: the ledger need not continue the certificate's",
        where="s3t_core/erasure/offline.py::_check_certificate",
        takes=(
            "predicate['ledger']['name'] != checkpoint['ledger'] or not continues(*head, "
            "*_head(checkpoint), _hashes(proof['consistency']))"
        ),
        puts="False",
        fails="tests/unit/test_bundle.py::rewritten_after",
    ),
    Mutant(
        name="certificate: the scan need not be in the ledger",
        where="s3t_core/erasure/certificate.py::_check_included",
        takes="not (same and proved)",
        puts="False",
        fails="tests/unit/test_executor.py::tells_of_another_scan",
    ),
    Mutant(
        name="request: a hold stops nothing",
        where="s3t_core/erasure/closing.py::is_ready",
        takes=(
            "request.subject not in state.holds and (not needs_approval or "
            "request.request_id in state.approved)"
        ),
        puts="not needs_approval or request.request_id in state.approved",
        fails="tests/unit/test_executor.py::held_or_unapproved",
    ),
    Mutant(
        name="request: approval is not waited for",
        where="s3t_core/erasure/closing.py::is_ready",
        takes="not needs_approval or request.request_id in state.approved",
        puts="True",
        fails="tests/unit/test_executor.py::held_or_unapproved",
    ),
    Mutant(
        name="request: closed while it is carried out",
        where="s3t_core/erasure/rules.py::_open_and_waiting",
        takes="_want(request not in state.planned, 'a request that is not being carried out')",
        puts="",
        fails="tests/unit/test_executor.py::closed_while_it_was",
    ),
    Mutant(
        name="residue: what cannot be decoded is certified",
        where="s3t_core/erasure/executor.py::Eraser._looked",
        takes="report.undecodable",
        puts="False",
        fails="tests/unit/test_executor.py::searched_to_its_end",
    ),
    Mutant(
        name="outcomes: who was not there was erased",
        where="s3t_core/erasure/outcome.py::outcome_of",
        takes="'nothing found'",
        puts="'erased'",
        fails="tests/unit/test_executor.py::nobody_is_told_erased",
    ),
    Mutant(
        name="outcomes: what no stage saw was erased",
        where="s3t_core/erasure/outcome.py::outcome_of",
        takes="return 'not trained on yet'",
        puts="pass",
        fails="tests/unit/test_executor.py::since_the_training",
    ),
    Mutant(
        name="report: an overdue open request is not missed",
        where="s3t_core/erasure/report.py::_met",
        takes="None if known.clock_corrected or asked.unsure else False",
        puts="None",
        fails="tests/unit/test_report.py::each_request",
    ),
    Mutant(
        name="report: documents are not held against the ledger",
        where="s3t_core/erasure/report.py::_compared",
        takes="'as recorded' if sha256_hex(document) == recorded else 'other bytes'",
        puts="'as recorded'",
        fails="tests/unit/test_report.py::an_alarm",
    ),
    Mutant(
        name="requests: an idempotency key is on no record",
        where="s3t_core/erasure/ledger.py::_request",
        takes="if event['once']: ...",
        puts="if False: ...",
        fails="tests/faults/test_beside_the_ledger.py::ledger_alone",
    ),
    Mutant(
        name="buckets: nobody looks again before the certificate",
        where="s3t_core/erasure/executor.py::Eraser._certify",
        takes="self.ports.residue.check()",
        puts="",
        fails="tests/unit/test_executor.py::began_to_keep",
    ),
    Mutant(
        name="buckets: a certificate over what a bucket keeps",
        where="s3t_core/erasure/executor.py::Eraser._certify",
        takes="self.ports.residue.check()",
        puts="",
        fails="tests/stack/test_s3.py::switched_on_meanwhile",
    ),
    Mutant(
        name="book: a request that only looks closed",
        where="s3t_core/erasure/closing.py::check_book",
        takes="told != kept",
        puts="False",
        fails="tests/unit/test_book.py::alone_is_noticed",
    ),
    Mutant(
        name="bundle: copies under other names count",
        where="s3t_core/erasure/offline.py::check_bundle",
        takes="if strange: ...",
        puts="if False: ...",
        fails="tests/unit/test_bundle.py::under_another_name",
    ),
    Mutant(
        name="ledger: its rules are not asked",
        where="s3t_core/erasure/ledger.py::_applied",
        takes="check(state, event)",
        puts="",
        fails="tests/unit/test_rules.py::each_event",
    ),
    Mutant(
        name="ledger: a stage key is bound again",
        where="s3t_core/erasure/rules.py::_stage",
        takes="_want(stage.key not in state.stages, 'a stage key that is not bound yet')",
        puts="",
        fails="tests/unit/test_rules.py::each_event",
    ),
    Mutant(
        name="ledger: a certificate without a scan",
        where="s3t_core/erasure/rules.py::_certified",
        takes="request in state.planned and 'scan' in state.steps",
        puts="request in state.planned",
        fails="tests/unit/test_rules.py::each_event",
    ),
    Mutant(
        name="ledger: time runs back in silence",
        where="s3t_core/erasure/ledger.py::corrected",
        takes="found.append({'type': 'clock', 'time': event['time'], 'before': newest})",
        puts="",
        fails="tests/faults/test_beside_the_ledger.py::700_days",
    ),
    Mutant(
        name="ledger: a wrong clock buys time",
        where="s3t_core/erasure/ledger.py::_clock",
        takes="request.received > now and state.is_open(request_id)",
        puts="False",
        fails="tests/faults/test_beside_the_ledger.py::700_days",
    ),
    Mutant(
        name="book: the suppression list is held against nothing",
        where="s3t_core/erasure/closing.py::check_book",
        takes="dict(suppressed) != state.suppressed",
        puts="False",
        fails="tests/faults/test_beside_the_ledger.py::suppression_list",
    ),
    Mutant(
        name="keys: a replaced key signs on",
        where="s3t_core/erasure/offline.py::_Keys.check_place",
        takes="index > self.until.get(signer, index)",
        puts="False",
        fails="tests/unit/test_bundle.py::replaced_key",
    ),
    Mutant(
        name="keys: a key that the ledger does not know is given",
        where="s3t_core/erasure/offline.py::_Keys.follow",
        takes="if strange: ...",
        puts="if False: ...",
        fails="tests/faults/test_beside_the_ledger.py::by_the_old_key",
    ),
    Mutant(
        name="keys: a replaced key's document stands alone",
        where="s3t_core/erasure/offline.py::GivenKeys.told_of",
        takes="key in self._replaced",
        puts="False",
        fails="tests/faults/test_beside_the_ledger.py::whatever_keys",
    ),
    Mutant(
        name="keys: nobody asks who vouched",
        where="s3t_core/erasure/offline.py::KeyReplaced.check",
        takes="if not self.vouched: ...",
        puts="...",
        fails="tests/faults/test_beside_the_ledger.py::nobody_vouched",
    ),
    Mutant(
        name="needles: a spelling that comes when the erasure has begun is taken",
        where="s3t_core/erasure/rules.py::_spelt",
        takes="_open_and_waiting(state, request)",
        puts="",
        fails="tests/unit/test_rules.py::refused_everywhere_else",
    ),
    Mutant(
        name="cut off: the needles go before all is certified",
        where="s3t_core/erasure/executor.py::Eraser._certify",
        takes="uncertified = [r for r in plan.requests if r not in state.certified]",
        puts=(
            "self.ports.needles.forget(plan.plan_id, plan.requests)\n"
            "uncertified = [r for r in plan.requests if r not in state.certified]"
        ),
        fails="tests/flows/test_cut_off.py::leaves_its_needles",
    ),
    Mutant(
        name="cut off: the next run's scan is on no record",
        where="s3t_core/erasure/executor.py::Eraser._certify",
        takes="self._scan",
        puts="self._looked",
        fails="tests/flows/test_cut_off.py::certified_as_lost",
    ),
    Mutant(
        name="cut off: what was signed and not recorded stays",
        where="s3t_core/erasure/executor.py::Eraser._certify",
        takes="self.ports.certificates.discard(uncertified)",
        puts="",
        fails="tests/flows/test_cut_off.py::is_no_document",
    ),
    Mutant(
        name="cut off: an id that is kept while it is certified stays",
        where="s3t_core/erasure/executor.py::Eraser._certify",
        takes="self.ports.needles.forget(plan.plan_id, plan.requests)",
        puts="",
        fails="tests/flows/test_cut_off.py::leaves_no_id",
    ),
    Mutant(
        name="holds: the ledger takes one of whom a hash found",
        where="s3t_core/erasure/rules.py::_hold",
        takes="*state.requests[r].subjects",
        puts="",
        fails="tests/unit/test_rules.py::begun_found_by_a_hash",
    ),
    Mutant(
        name="needles: a scan for less than was told is taken",
        where="s3t_core/erasure/rules.py::_scanned",
        takes="event['spellings'] in (sought, sum(told.values()))",
        puts="True or sought",
        fails="tests/unit/test_rules.py::refused_everywhere_else",
    ),
    Mutant(
        name="needles: what is lost is not counted",
        where="s3t_core/erasure/executor.py::Eraser._looked",
        takes=(
            "{'files': report.files, 'bytes': report.bytes, 'needles': report.needles, "
            "'spellings': sum((len(state.requests[r].ids) for r in sought)), "
            "'unsearchable': report.unsearchable + lost, 'lost': lost, 'ids_lost': unknown, "
            "'shared': report.shared, 'outside': len(report.outside), **({'ids_unsearchable': "
            "unsearchable} if unsearchable else {})}"
        ),
        puts=(
            "{'files': report.files, 'bytes': report.bytes, 'needles': report.needles, "
            "'spellings': sum((len(state.requests[r].ids) for r in sought)), "
            "'unsearchable': report.unsearchable, 'lost': 0, 'ids_lost': unknown, 'shared': "
            "report.shared, 'outside': len(report.outside), **({'ids_unsearchable': unsearchable} "
            "if unsearchable else {})}"
        ),
        fails="tests/unit/test_executor.py::restore_lost",
    ),
    Mutant(
        name="report: a request without its document is counted",
        where="s3t_core/erasure/report.py::_summary",
        takes="[r for r in every if r.document in ('as recorded', 'none yet')]",
        puts="every",
        fails="tests/unit/test_report.py::counted_as_nothing",
    ),
    Mutant(
        name="move: an erasure begins meanwhile",
        where="s3t_core/erasure/rules.py::_planned",
        takes="_want(state.moving is None, 'no move that was begun')",
        puts="",
        fails="tests/unit/test_rules.py::while_a_move",
    ),
    Mutant(
        name="book: salts are held against nothing",
        where="s3t_core/erasure/closing.py::check_book",
        takes="salts[i] != r.salt",
        puts="False and salts[i] != r.salt",
        fails="tests/unit/test_book.py::another_salt",
    ),
    Mutant(
        name="plan: it carries a time of before the training",
        where="s3t_core/erasure/executor.py::Eraser.plan",
        takes="_(time=self._now())",
        puts="",
        fails="tests/unit/test_executor.py::training_came_before",
    ),
    Mutant(
        name="needles: texts that were taken out are not missed",
        where="s3t_core/erasure/executor.py::Eraser._looked",
        takes="found.texts is not None and len(set(found.texts)) == plan.texts",
        puts="found.texts is not None",
        fails="tests/unit/test_executor.py::taken_out_after",
    ),
    Mutant(
        name="report: collateral that a replacement uses",
        where="s3t_core/erasure/certificate.py::collateral_rows",
        takes="set(slices) - learned",
        puts="set(slices)",
        fails="tests/unit/test_report.py::no_collateral",
    ),
    Mutant(
        name="report: nobody counts as erased",
        where="s3t_core/erasure/report.py::_Seen._release",
        takes="r.found",
        puts="r.plan != ''",
        fails="tests/unit/test_report.py::found_nobody",
    ),
    Mutant(
        name="report: late by a clock that ran ahead when it was closed",
        where="s3t_core/erasure/report.py::_met",
        takes="known.clock_corrected or asked.unsure",
        puts="known.clock_corrected",
        fails="tests/unit/test_report.py::ran_ahead",
    ),
    Mutant(
        name="report: late by a clock that was put right",
        where="s3t_core/erasure/report.py::_met",
        takes="None if known.clock_corrected or asked.unsure else False",
        puts="False",
        fails="tests/faults/test_beside_the_ledger.py::clock_that_is_behind",
    ),
    Mutant(
        name="keys: a replaced key comes back",
        where="s3t_core/erasure/offline.py::_Keys.follow",
        takes=(
            "self._given.check_chain(signer, ((e['old'], e['new'], not e['vouched']) for e "
            "in chain))"
        ),
        puts=(
            "False and self._given.check_chain(signer, ((e['old'], e['new'], not "
            "e['vouched']) for e in chain))"
        ),
        fails="tests/faults/test_beside_the_ledger.py::come_back",
    ),
    Mutant(
        name="outcome: erased from no model",
        where="s3t_core/erasure/outcome.py::outcome_of",
        takes="rows.earlier and trained",
        puts="rows.earlier",
        fails="tests/unit/test_executor.py::none_was_ever_trained",
    ),
    Mutant(
        name="outcome: no model counts as one",
        where="s3t_core/erasure/ledger.py::outcome_in",
        takes="bool(state.stages or state.versions)",
        puts="True",
        fails="tests/flows/test_people.py::no_model_was_ever_trained",
    ),
    Mutant(
        name="scan: a file that is still written is told of like any other",
        where="s3t_core/erasure/executor.py::_left",
        takes="set(report.residue) <= set(report.written)",
        puts="False",
        fails="tests/flows/test_half_written.py::living_process",
    ),
    Mutant(
        name="certify: a killed run's scan counts for the next",
        where="s3t_core/erasure/executor.py::Eraser._certify",
        takes="uncertified and self._scanned != plan.plan_id",
        puts="False",
        fails="tests/flows/test_reconciling.py::by_a_scan_of_a_run",
    ),
    Mutant(
        name="verify: damaged compression is a traceback",
        where="s3t_core/erasure/offline.py::read_files",
        takes="zlib.error",
        puts="",
        fails="tests/faults/test_hostile.py::damaged",
    ),
    Mutant(
        name="verify: a number without an end is a traceback",
        where="s3t_core/erasure/offline.py::_Keys.follow",
        takes="OverflowError",
        puts="",
        fails="tests/unit/test_bundle.py::number_that_is_none",
    ),
    Mutant(
        name="book: an open request needs no salt",
        where="s3t_core/erasure/closing.py::check_book",
        takes="(i not in salts for i in state.requests if state.is_open(i))",
        puts="(False for i in state.requests)",
        fails="tests/unit/test_book.py::open_request_that_is_gone",
    ),
    Mutant(
        name="people: a hash is resolved when it is asked",
        where="s3t_core/erasure/executor.py::Eraser.plan",
        takes="self._meant(requests, state)",
        puts="{r.request_id: {} for r in requests if state.requests[r.request_id].forms}",
        fails="tests/flows/test_people.py::between_a_request_by_hash",
    ),
    Mutant(
        name="people: a hold does not keep who is asked for by a hash",
        where="s3t_core/erasure/executor.py::Eraser.plan",
        takes=(
            "requests = [r for r in requests if "
            "state.holds.keys().isdisjoint(meant.get(r.request_id, ()))]"
        ),
        puts="",
        fails="tests/flows/test_people.py::a_hold_keeps",
    ),
    Mutant(
        name="people: who was erased by hash comes back otherwise",
        where="s3t_core/erasure/executor.py::Eraser.plan",
        takes="tuple(sorted({n for s in subjects[r] for n in meant[r][s]}))",
        puts="()",
        fails="tests/flows/test_people.py::erased_by_hash_does_not",
    ),
    Mutant(
        name="people: the ledger takes another rule while a request is open",
        where="s3t_core/erasure/rules.py::_dataset",
        takes="standing <= {rule}",
        puts="True",
        fails="tests/unit/test_rules.py::each_event_is_taken",
    ),
    Mutant(
        name="people: the index is kept where no row is rewritten",
        where="s3t_core/erasure/executor.py::Eraser._rewrite",
        takes="plan.touches_data or plan.objects",
        puts="plan.touches_data",
        fails="tests/flows/test_stored.py::alone_is_found_by_a_hash",
    ),
    Mutant(
        name="people: the certificate says the id was searched for",
        where="s3t_core/erasure/executor.py::Eraser._looked",
        takes="sorted({*found.ids_lost, *hashed})",
        puts="found.ids_lost",
        fails="tests/flows/test_people.py::what_it_could_not_search",
    ),
    Mutant(
        name="people: who is spelt nearly like a misspelt request is left out",
        where="s3t_core/erasure/ledger.py::_certified",
        takes="state.requests[request] = replace(asked, near=_very_id(asked))",
        puts="pass",
        fails="tests/flows/test_people.py::found_nobody_keeps_out",
    ),
    Mutant(
        name="people: an exact request that found nobody keeps nobody out",
        where="s3t_core/erasure/ledger.py::_very_id",
        takes="asked.asked_by != 'id' or EXACT in asked.id_rule",
        puts="asked.asked_by != 'id'",
        fails="tests/flows/test_people.py::stays_out_under_another_rule_too",
    ),
    Mutant(
        name="people: a hash that found nobody keeps nobody out",
        where="s3t_core/erasure/ledger.py::_very_id",
        takes="asked.asked_by != 'id' or EXACT in asked.id_rule",
        puts="EXACT in asked.id_rule",
        fails="tests/flows/test_people.py::a_hash_of_nobody_keeps_out_the_very",
    ),
    Mutant(
        name="people: an erasure changes the rule for ids",
        where="s3t_core/erasure/rules.py::_dataset",
        takes="(rule, columns) == ((was.id_rule, was.id_columns) if was else ((), ()))",
        puts="True",
        fails="tests/unit/test_rules.py::each_event_is_taken",
    ),
    Mutant(
        name="verify.py: a device is read for ever",
        where="s3t_core/erasure/offline.py::_regular",
        takes="not path.is_file()",
        puts="path.is_dir()",
        fails="tests/faults/test_hostile.py::not_waited_for and verify and pipe",
    ),
)
