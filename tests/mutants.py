"""Take each protection out, one at a time, in a copy of the sources, and see its test fail. `make test-mutants`.

A mutant that survives (its test still passes) is an error: the test could not fail.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutant:
    """In `file`, `old` becomes `new`; then `test` (a pytest node or -k expression in a file) must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


HAZARDS = "tests/exactness/test_hazards.py"
MUTANTS = (
    Mutant("1: layers by substring", "s3t_core/learning/backbone.py",
           "if match and int(match[1]) in layers and match[2] in targets:",
           "if match and any(str(i) in match[1] for i in layers) and match[2] in targets:", f"{HAZARDS}::hazard_1"),
    Mutant("1: everything may train", "s3t_core/learning/replica.py",
           'parameter.requires_grad_(marker in f".{parameter_name}.")', "parameter.requires_grad_(True)",
           f"{HAZARDS}::hazard_1"),
    Mutant("2: one head for all stages", "s3t_core/learning/replica.py",
           "result: Tensor = self.heads[name](features)",
           "result: Tensor = self.heads[list(self.heads)[-1]](features)", f"{HAZARDS}::hazard_2"),
    Mutant("3: loading wipes earlier adapters", "s3t_core/learning/replica.py",
           "        head = torch.nn.Linear(self.hidden, len(self.recipe.labels))",
           "        for n, p in self.model.named_parameters():\n            if 'lora_B' in n: p.data.zero_()\n"
           "        head = torch.nn.Linear(self.hidden, len(self.recipe.labels))", f"{HAZARDS}::hazard_3"),
    Mutant("3: stages above stay on", "s3t_core/learning/replica.py",
           "[a for a in _adapters_of(layer) if a in wanted]", "_adapters_of(layer)", f"{HAZARDS}::hazard_3"),
    Mutant("4: keys omit the slices", "s3t_core/learning/recipe.py", '"slices": list(slice_digests),',
           '"slices": [],', f"{HAZARDS}::hazard_4"),
    Mutant("4: the digest omits the label", "s3t_core/records.py",
           "encode_fields(row.record, row.subject, row.text, row.label)",
           "encode_fields(row.record, row.subject, row.text)", f"{HAZARDS}::hazard_4"),
    Mutant("5: slices by position", "s3t_core/snapshot.py",
           "slice_id = place(self._keys.placement, subject, self._topology.shards, span)",
           "slice_id = self._topology.slice_ids()[len(self._placed) % len(self._topology.slice_ids())]",
           "tests/unit/test_canon.py::other_slices"),
    Mutant("7: a subject stands in the slices of two tiers", "s3t_core/snapshot.py",
           "        if digest in job.refused:\n", "        if digest in job.refused and False:\n",
           "tests/unit/test_canon.py::disagree_about"),
    Mutant("12: activations of an erased slice stay", "s3t_core/learning/activation_store.py",
           "            for path in [*doomed,", "            for path in [",
           "tests/exactness/test_activations.py::after_an_erasure"),
    Mutant("12: activations of an erased slice come back", "s3t_core/learning/activation_store.py",
           "return self.limit > 0 and slice_digest in self._live()", "return self.limit > 0",
           "tests/exactness/test_activations.py::after_an_erasure"),
    Mutant("13: activations are not checked", "s3t_core/learning/activation_store.py",
           "if not hmac.compare_digest(self._seal(key, path), path.with_suffix(\".seal\").read_bytes()):", "if False:",
           "tests/exactness/test_activations.py::damaged"),
    Mutant("13: activations are named by less than decides them", "s3t_core/learning/activations.py",
           '"max_length": recipe.max_length, "dtype"', '"dtype"', "tests/exactness/test_activations.py::everything"),
    Mutant("serving: what shards share is computed under adapters", "s3t_core/learning/ensemble.py",
           "        self._staged.activate([])", "        pass", "tests/exactness/test_onepass.py::every_combination"),
    Mutant("serving: shards answer for each other", "s3t_core/learning/onepass.py",
           "parts[self._order.index(i)] for i", "parts[i] for i", "tests/exactness/test_onepass.py::every_combination"),
    Mutant("13: a resumed backbone computes from other states", "s3t_core/learning/split.py",
           "if index == self._first and self._given is not None:", "if False:",
           "tests/exactness/test_split.py::resumed"),
    Mutant("6: planning from the first release", "s3t_core/erasure/planner.py",
           "tuple(_silence(r, keys | damaged) for r in state.release.replicas)",
           "tuple(_silence(r, keys | damaged) for r in state.versions[0].release.replicas)",
           "tests/unit/test_executor.py::hazard_6_the_planner"),
    Mutant("7: votes weighed", "s3t_core/learning/ensemble.py", "return total / len(self._shards)",
           "return total / (total.sum(1, keepdim=True) + 1)", f"{HAZARDS}::hazard_7_votes"),
    Mutant("7: labels from the rows", "s3t_core/learning/replica.py",
           "head = torch.nn.Linear(self.hidden, len(self.recipe.labels))", "head = torch.nn.Linear(self.hidden, 1)",
           f"{HAZARDS}::hazard_7_the_label"),
    Mutant("8: held-out rows decide", "s3t_core/learning/stage.py",
           "loss, steps = _fit(staged, name, in_order(parts, reader.reader), seed, reader.layer)",
           "loss, steps = _fit(staged, name, in_order(parts, reader.reader), seed + len(held_out), reader.layer)",
           f"{HAZARDS}::hazard_8"),
    Mutant("9: the seed knows the budget", "s3t_core/learning/recipe.py",
           'place = {"seed": self.training["seed"], "shard": shard, "prefix": list(prefix)}',
           'place = {"seed": self.training["seed"], "shard": shard, "prefix": list(prefix), "n": id(self) % 2**40}',
           f"{HAZARDS}::hazard_9_a_stage"),
    Mutant("10: no seed of its own", "s3t_core/learning/stage.py", "    torch.manual_seed(seed)\n", "",
           f"{HAZARDS}::hazard_10"),
    Mutant("11: merged into weights", "s3t_core/learning/ensemble.py",
           "            self._shards.append(ShardStages(names))",
           "            self._shards.append(ShardStages(names))\n            for m in self._staged._tuner_layers():\n"
           "                m.merge(adapter_names=[a for a in names.values() if a in m.lora_A])",
           f"{HAZARDS}::hazard_11"),
    Mutant("12: the old version stays", "s3t_core/erasure/planner.py",
           "if version.release.stage_keys() & tainted or (expired and not serves):",
           "if expired and not serves:", "tests/unit/test_executor.py::silences_exactly"),
    Mutant("13: layout from a shared generator", "s3t_core/learning/stage.py", "    generator.shuffle(order)\n",
           "    random.shuffle(order)\n", f"{HAZARDS}::hazard_13"),
    Mutant("order: rows as they come", "s3t_core/slicefile.py", "    ordered = sorted(rows)\n",
           "    ordered = list(rows)\n", "tests/unit/test_canon.py::source_order"),
    Mutant("deactivation: one stage too few", "s3t_core/erasure/planner.py",
           "tainted = tuple(s for s in state.stages.values() if findings.tainted & set(s.slice_digests))",
           "tainted = tuple(s for s in state.stages.values() if findings.tainted & set(s.slice_digests[1:]))",
           "tests/unit/test_executor.py::silences_exactly"),
    Mutant("store: loads are not verified", "s3t_core/learning/store.py", "        if got != digest:\n",
           "        if False:\n", "tests/unit/test_evidence.py::the_store_verifies"),
    Mutant("envelope: spelling is not checked", "s3t_core/erasure/dsse.py",
           '    if not canonical or canonical_json(_envelope(payload, signature["keyid"], raw)) != envelope:  ',
           "    if False:  ", "tests/unit/test_evidence.py::any_changed_byte"),
    Mutant("scan: residue does not stop", "s3t_core/erasure/executor.py", "        if report.residue:\n",
           "        if False:\n", "tests/unit/test_executor.py::residue_stops"),
    Mutant("crash: the plan is not written ahead", "s3t_core/erasure/executor.py",
           '        self.ports.ledger.append({"type": "planned", "time": plan.time, "plan": plan_to_json(plan)})\n', "",
           "tests/unit/test_executor.py::silences_exactly"),
    Mutant("plan: damaged stages are counted on", "s3t_core/erasure/executor.py", "            damaged |= broken\n",
           "            return plan\n", "tests/unit/test_executor.py::damaged_clean"),
    Mutant("scan: records are not looked for", "s3t_core/erasure/residue.py",
           "if any(t.matches(subject, record) or not record for t in targets):", "if False:",
           "tests/unit/test_evidence.py::erased_record"),
    Mutant("cut-over: only the present staleness", "s3t_core/erasure/executor.py",
           "return max([self.policy.staleness_seconds, *(v.staleness for v in state.versions)])",
           "return self.policy.staleness_seconds", "tests/unit/test_executor.py::most_trusting"),
    Mutant("crash: the orphan artifact stays", "s3t_core/erasure/executor.py",
           "if digest not in known:", "if digest in {s.digest for s in plan.deactivated}:",
           "tests/unit/test_executor.py::silences_exactly"),
    Mutant("retrain: a stage is stored though an erasure overtook it", "flows/train.py",
           "            if self.has_moved(place.ledger.state(), spec):", "            if False:",
           "tests/flows/test_budget.py::during_the_retrain and stored"),
    Mutant("retrain: a version is registered though an erasure overtook it", "flows/train.py",
           "                if self.has_moved(state):\n                    return None\n"
           "                if state.champion and (champion is None or state.champion.version != champion.version):",
           "                if False:",
           "tests/flows/test_budget.py::during_the_retrain and registered"),
    Mutant("retrain: triggered again after a crash", "flows/retrain.py",
           "idempotency_key=f\"{wanted.get('id')}:{wanted.get('attempt', 1)}\"", "idempotency_key=None",
           "tests/flows/test_budget.py::triggered_once"),
    Mutant("first: the replacement may keep what is to be erased", "s3t_core/erasure/executor.py",
           "if found is None or found[0].stage_keys() & {s.key for s in plan.deactivated}:", "if found is None:",
           "tests/unit/test_executor.py::replacement"),
    Mutant("first: what a killed run had trained stays", "s3t_core/erasure/executor.py",
           "gone = {s.key for s in plan.deactivated} | _unaccounted(state)", "gone = {s.key for s in plan.deactivated}",
           "tests/unit/test_executor.py::never_was_the_data"),
    Mutant("first: a stage on content that is destroyed stays", "s3t_core/erasure/executor.py",
           "if v.md5 not in state.destroyed_objects}", "}", "tests/unit/test_executor.py::whose_file_is_destroyed"),
    Mutant("destroy: a run the ledger never learned of stays", "flows/adapters/registry.py",
           "(STAGE_TAG in tags and tags[STAGE_TAG] not in live_stages)", "False",
           "tests/flows/test_walk.py::record_to_a_certificate"),
    Mutant("retrain: an overtaken version is served again", "flows/train.py",
           "if state.champion and (champion is None or state.champion.version != champion.version):", "if False:",
           "tests/flows/test_budget.py::moved_the_version_on"),
    Mutant("checkpoint: a ledger is held against none", "flows/wiring.py",
           "        self.checkpoints.check(leaf_hash(leaf_of(events[0])).hex(), ledger.leaves)\n", "",
           "tests/faults/test_checkpoints.py::rolled_back"),
    Mutant("checkpoint: only the newest entries are held against it", "s3t_core/erasure/checkpoint.py",
           "if tree_head(leaves[:size]).hex() != checkpoint.head.root:", "if False:",
           "tests/faults/test_checkpoints.py::rewritten_with_hashes"),
    Mutant("checkpoint: acknowledged before it is written", "flows/requests.py",
           "    place.write_checkpoint()\n    return taken", "    return taken",
           "tests/faults/test_checkpoints.py::before_a_request_is_acknowledged"),
    Mutant("bundle: a closing entry need not be in the ledger", "s3t_core/erasure/offline.py",
           'if not includes(root, size, proof["index"], _leaf(closing), _hashes(proof["inclusion"])):', "if False:",
           "tests/unit/test_bundle.py::value_of_a_proof"),
    Mutant("bundle: the ledger need not continue the certificate's", "s3t_core/erasure/offline.py",
           """if predicate["ledger"]["name"] != checkpoint["ledger"] or not continues(
                *head, *_head(checkpoint), _hashes(proof["consistency"])):""", "if False:",
           "tests/unit/test_bundle.py::rewritten_after"),
    Mutant("certificate: the scan need not be in the ledger", "s3t_core/erasure/certificate.py",
           "    if not (same and proved):", "    if False:", "tests/unit/test_executor.py::tells_of_another_scan"),
    Mutant("request: a hold stops nothing", "s3t_core/erasure/closing.py",
           "return request.subject not in state.holds and (", "return (",
           "tests/unit/test_executor.py::held_or_unapproved"),
    Mutant("request: approval is not waited for", "s3t_core/erasure/closing.py",
           "(not needs_approval or request.request_id in state.approved)", "True",
           "tests/unit/test_executor.py::held_or_unapproved"),
    Mutant("request: closed while it is carried out", "s3t_core/erasure/ledger.py",
           'raise ValueError("the request is being carried out")', "pass",
           "tests/unit/test_executor.py::closed_while_it_was"),
    Mutant("budget: a policy forgets that nothing is left", "s3t_core/capacity/budget.py",
           "tripped = len(dead) == len(shards)", "tripped = False", "tests/unit/test_capacity.py::nothing_is_left"),
    Mutant("evidence: who lost the lease goes on writing", "flows/adapters/database.py",
           "if self.fence is not None:", "if self.fence is None:", "tests/faults/test_lease.py::stood_still"),
    Mutant("a dead holder keeps the lease", "flows/adapters/lease.py",
           "and time.monotonic() - began > self._patience)", "and False)", "tests/faults/test_lease.py::killed"),
    Mutant("a binding's seal leaves out the key", "s3t_core/learning/store.py",
           '"stage binding", key, digest)', '"stage binding", digest)', "tests/faults/test_hostile.py::passed_off"),
    Mutant("a row commitment leaves out the request", "s3t_core/records.py",
           '"row", request_id, row.record', '"row", row.record', "tests/faults/test_hostile.py::commitment"),
    Mutant("residue: packed git objects are not searched", "flows/adapters/local.py",
           "with git_objects(self._root) as streams:", "for streams in [()]:",
           "tests/flows/test_nothing_left.py::packed_git"),
    Mutant("residue: links are not followed", "s3t_core/erasure/residue.py",
           "linked += [path] if own else []", "linked += []", "tests/flows/test_nothing_left.py::behind_a_link"),
    Mutant("a data file may be a link to elsewhere", "flows/adapters/datasets.py",
           "if path.is_symlink() and not path", "if False and not path", "tests/flows/test_nothing_left.py::is_a_link"),
    Mutant("only the default remote is cleaned", "flows/adapters/datasets.py",
           '*(repo.cloud.get_remote_odb(name) for name in repo.config["remote"])', "repo.cloud.get_remote_odb()",
           "tests/flows/test_nothing_left.py::every_remote"),
    Mutant("a lost registry is replaced by an empty one", "flows/wiring.py",
           "if not there and self.ledger.state().versions:", "if False:",
           "tests/flows/test_stopped.py::is_gone"),
    Mutant("offline use needs no declaration", "flows/adapters/champion.py",
           'if asked - self._confirmed <= self._serving.get("offline_seconds", 0):', "if self._confirmed > 0:",
           "tests/flows/test_offline.py::offline"),
    Mutant("children outlive a killed parent", "flows/adapters/child.py",
           "    os.killpg(0, signal.SIGKILL)\n", "    pass\n", "tests/flows/test_serving.py::die_with"),
    Mutant("report: an overdue open request is not missed", "s3t_core/erasure/report.py",
           'overdue = False if now > told["due"] else None', "overdue = None",
           "tests/unit/test_report.py::each_request"),
    Mutant("report: documents are not held against the ledger", "s3t_core/erasure/report.py",
           "return \"as recorded\" if sha256_hex(document) == recorded else \"other bytes\"", "return \"as recorded\"",
           "tests/unit/test_report.py::an_alarm"),
    Mutant("a version copies its stages", "s3t_core/learning/store.py",
           "path.hardlink_to(self.blobs.root / path.name)", "raise OSError", "tests/flows/test_walk.py::costs_no_copy"),
    Mutant("a damaged version is not mended", "flows/adapters/registry.py",
           "            if known:\n", "            if known and False:\n", "tests/flows/test_walk.py::damaged_or_lost"),
    Mutant("spooling: the last rows may be lost", "s3t_core/snapshot.py",
           "        if problems:\n", "        if False:\n", "tests/unit/test_canon.py::full_disk"),
    Mutant("ingest: a row beside a malformed one loses its place", "flows/adapters/sources.py",
           "            yield _NOT_A_ROW\n            place += 1\n", "            place += 1\n",
           "tests/unit/test_sources.py::keeps_its_place"),
    Mutant("profile: bfloat16 by the machine stands in no key", "s3t_core/learning/recipe.py",
           'training["dtype"] = "bfloat16" if low else "float32"', "pass",
           f"{HAZARDS}::left_to_the_machine"),
    Mutant("servers: a password in s3t.toml", "s3t_core/config/places.py",
           'if found.password is not None or "password" in found.query:', "if False:",
           "tests/unit/test_config.py::wrong_value"),
    Mutant("schema: a later release's database is taken", "flows/migrations/__init__.py",
           "    except CommandError:\n", "    except CommandError:\n        return\n",
           "tests/unit/test_migrations.py::later_release"),
    Mutant("PostgreSQL: writers do not wait for each other", "flows/adapters/database.py",
           'f"SELECT pg_advisory_xact_lock({_WRITER})"', '"SELECT 1"',
           "tests/stack/test_postgresql.py::append_at_once"),
    Mutant("buckets: versions are kept", "flows/adapters/s3.py",
           'if status == "Enabled" or kept:', "if False:", "tests/stack/test_s3.py::keeps_versions"),
    Mutant("buckets: the scan leaves them out", "flows/adapters/local.py",
           "wanted, targets, streams, self._objects(),", "wanted, targets, streams, (),",
           "tests/stack/test_s3.py::reads_every_object"),
    Mutant("registry: a server's files of destroyed versions stay", "flows/adapters/registry_server.py",
           "                if _files(repository, path):\n                    repository.delete_artifacts(path)\n"
           "            left = [f for path in gone for f in _files(repository, path)]",
           "                pass\n            left = []",
           "tests/stack/test_walk.py::whole_walk"),
    Mutant("change: without the lease of other machines", "flows/wiring.py",
           "            with Lease(self.database, CHANGE, lock_place(self.lock_path)).held(wait_seconds) as lease:\n",
           "            with contextlib.nullcontext(Lease(self.database, CHANGE, \"\")) as lease:\n",
           "tests/faults/test_lease.py::every_command_that_changes"),
    Mutant("book: a request that only looks closed", "s3t_core/erasure/closing.py", "    if not same:\n",
           "    if False:\n",
           "tests/unit/test_book.py::alone_is_noticed"),
    Mutant("move: the old database stays", "flows/adapters/database.py",
           "            for table in tables:\n                table.drop(here)\n", "",
           "tests/flows/test_migrating.py::old_database_open"),
    Mutant("move: what is left at the old places stays", "flows/migrating.py",
           "        self._destroy(self.old, state)\n", "", "tests/flows/test_migrating.py::nothing_is_left"),
    Mutant("move: erasures go on while copies lie about", "flows/wiring.py",
           "        if self.migration_path.is_file():\n", "        if False:\n",
           "tests/flows/test_migrating.py::cut_anywhere"),
    Mutant("restore: stages that came back stay", "flows/healing.py",
           "        place.store.delete(digest)\n", "        pass\n", "tests/flows/test_healing.py::destroyed_again"),
    Mutant("restore: objects that came back stay", "flows/healing.py",
           "        place.datasets.destroy(back, [], state.dataset)\n", "        pass\n",
           "tests/flows/test_healing.py::destroyed_again"),
    Mutant("restore: a version that came back serves", "flows/healing.py",
           "    registry.destroy(list(whole.values()), state.stages)\n", "",
           "tests/flows/test_healing.py::serves_no_more"),
    Mutant("servers: another workspace's store is taken", "flows/wiring.py",
           "            elif owner != self.owner.encode():\n", "            elif False:\n",
           "tests/stack/test_walk.py::left_alone"),
    Mutant("servers: another workspace's versions are taken", "flows/adapters/registry.py",
           "        elif owner != self._owner:\n", "        elif False:\n", "tests/stack/test_walk.py::left_alone"),
    Mutant("pools: a run whose machine died stays", "flows/watching.py",
           "    if not suspects:\n", "    if True:\n",
           "tests/stack/test_faults.py::power_cut"),
    Mutant("Dask: what a killed worker fetched stays", "flows/adapters/dask_runner.py",
           "            remove_tree(folder)\n", "            pass\n",
           "tests/stack/test_dask.py::killed_worker_fetched"),
    Mutant("placement: layers that are trained through lie on disk", "s3t_core/learning/placement.py",
           "        if at == len(devices) and index >= lowest:\n", "        if False:\n",
           "tests/exactness/test_placement.py::must_have_a_device"),
    Mutant("command line: Prefect's error hides ours", "flows/cli_base.py", "            return at\n",
           "            break\n", "tests/flows/test_cli.py::could_not_report"),
    Mutant("command line: Prefect's traceback", "flows/cli.py", "        if meant is None:\n", "        if True:\n",
           "tests/flows/test_cli.py::does_not_answer"),
    Mutant("stack: a stranger on a port of ours", "infra/stack.py", "        self._want_ports()\n", "",
           "tests/unit/test_stack.py::port_that_somebody_has"),
    Mutant("stack: reports home", "infra/stack.py", ', "-master.telemetry=false")', ")",
           "tests/stack/test_s3.py::reports_nothing_home"),
    Mutant("canonical JSON: small numbers as Python writes them", "s3t_core/canonical.py",
           "1e-4 <= abs(value) < 1e16", "1e-9 <= abs(value) < 1e16", "tests/unit/test_canonical.py::library_writes"),
)


def survives(mutant: Mutant, copy: Path) -> bool:
    """Whether the test still passes with the protection taken out."""
    path = copy / mutant.file
    text = path.read_text()
    if mutant.old not in text:
        raise SystemExit(f"{mutant.name}: the line it takes out is not in {mutant.file} any more")
    path.write_text(text.replace(mutant.old, mutant.new, 1))
    file, _, expression = mutant.test.partition("::")
    own = {k: v for k, v in os.environ.items() if k != "S3T_TEST_STACK"}  # its workers run other code
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", file, "-k", expression], cwd=copy,
        capture_output=True, text=True, check=False,
        env={**own, "PYTHONPATH": str(copy), "S3T_TEST_FAULTS": "all"})
    path.write_text(text)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{mutant.name}: pytest could not run {mutant.test}\n{done.stdout[-1500:]}")
    return done.returncode == 0


def main() -> None:
    """Run every mutant, or those whose names have one of the given words; exit 1 when one survives."""
    survivors, chosen = [], [m for m in MUTANTS if len(sys.argv) == 1 or any(w in m.name for w in sys.argv[1:])]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.egg-info", "data", "__pycache__"))
        for mutant in chosen:
            alive = survives(mutant, copy)
            print(f"{'SURVIVED' if alive else 'killed  '}  {mutant.name}", flush=True)
            survivors += [mutant.name] if alive else []
    print(f"{len(chosen) - len(survivors)} killed, {len(survivors)} survived")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
