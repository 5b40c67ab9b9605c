"""Training: what a stage is made of, and what is kept of it."""

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="device: a stage is computed on another than its key names",
        where="s3t_core/learning/stage.py::train_stage",
        takes="check_device(max_memory, recipe.training['device'])",
        puts="",
        fails="tests/exactness/test_device_map.py::its_key_names",
    ),
    Mutant(
        name="device: settings may name two",
        where="s3t_core/config/tree.py::Config._fits",
        takes="self.runner.max_memory and on_cpu != (self.training.device == 'cpu')",
        puts="False",
        fails="tests/unit/config/test_config.py::max_memory",
    ),
    Mutant(
        name="backbone: weights that the files lack are drawn at random",
        where="s3t_core/learning/backbone.py::_check_loaded",
        takes="_POOLER not in name.split('.')",
        puts="False",
        fails="tests/exactness/test_backbones.py::not_drawn_at_random",
    ),
    Mutant(
        name="images: a row starts a program",
        where="s3t_core/learning/encoding.py::_image",
        takes="Image.open(file, formats=_FORMATS)",
        puts="Image.open(file)",
        fails="tests/exactness/test_backbones.py::starts_no_program",
    ),
    Mutant(
        name="backbone: a tokenizer's words come from a path",
        where="s3t_core/learning/backbone_settings.py::_has_another_loaded",
        takes="key in _WITHIN and isinstance(value, str)",
        puts="False",
        fails="tests/exactness/test_backbones.py::other_files_loaded and not_there_yet",
    ),
    Mutant(
        name="backbone: a setting leads out of the model's directory",
        where="s3t_core/learning/backbone_settings.py::_has_another_loaded",
        takes="_leads_elsewhere(piece, folder, hashed)",
        puts="False",
        fails="tests/exactness/test_backbones.py::other_files_loaded and outside",
    ),
    Mutant(
        name="backbone: what a tokenizer of several files is has no digest",
        where="s3t_core/learning/backbone.py::find_backbone",
        takes="_TOKENIZER not in tokenizer",
        puts="False",
        fails="tests/exactness/test_backbones.py::put_together_from_several_files",
    ),
    Mutant(
        name="backbone: settings have weights loaded that have no digest",
        where="s3t_core/learning/backbone_settings.py::_has_another_loaded",
        takes="key == _WEIGHTS",
        puts="False",
        fails="tests/exactness/test_backbones.py::other_files_loaded and weights",
    ),
    Mutant(
        name="backbone: settings have a tokenizer loaded that has no digest",
        where="s3t_core/learning/backbone_settings.py::_has_another_loaded",
        takes="not set(told) <= hashed",
        puts="False",
        fails="tests/exactness/test_backbones.py::other_files_loaded and tokenizer",
    ),
    Mutant(
        name="backbone: an adapter has another model loaded",
        where="s3t_core/learning/backbone_settings.py::check_settings",
        takes="path.name == _ADAPTER",
        puts="False",
        fails="tests/exactness/test_backbones.py::other_files_loaded and another",
    ),
    Mutant(
        name="backbone: code that lies in it runs where somebody says yes",
        where="s3t_core/learning/backbone.py::find_backbone",
        takes="AutoConfig.from_pretrained(path, trust_remote_code=False)",
        puts="AutoConfig.from_pretrained(path)",
        fails="tests/exactness/test_backbones.py::no_code_that_lies",
    ),
    Mutant(
        name="backbone: an index names what is not hashed",
        where="s3t_core/learning/backbone.py::find_backbone",
        takes="_check_indexes(path, {p.name for p in weights})",
        puts="",
        fails="tests/exactness/test_backbones.py::not_hashed",
    ),
    Mutant(
        name="1: layers by substring",
        where="s3t_core/learning/backbone.py::modules_in_layers",
        takes="int(match[1]) in layers",
        puts="any((str(i) in match[1] for i in layers))",
        fails="tests/exactness/test_hazards.py::hazard_1",
    ),
    Mutant(
        name="1: everything may train",
        where="s3t_core/learning/replica.py::StagedModel.trainable",
        takes="marker in f'.{parameter_name}.'",
        puts="True",
        fails="tests/exactness/test_hazards.py::hazard_1",
    ),
    Mutant(
        name="2: one head for all stages",
        where="s3t_core/learning/replica.py::StagedModel.classify",
        takes="name",
        puts="list(self.heads)[-1]",
        fails="tests/exactness/test_hazards.py::hazard_2",
    ),
    Mutant(
        name="3: loading wipes earlier adapters",
        where="s3t_core/learning/replica.py::StagedModel.attach",
        takes="with warnings.catch_warnings(): ...",
        puts=(
            "with warnings.catch_warnings():\n"
            "    ...\n"
            "for n, p in self.model.named_parameters():\n"
            "    if 'lora_B' in n:\n"
            "        p.data.zero_()"
        ),
        fails="tests/exactness/test_hazards.py::hazard_3",
    ),
    Mutant(
        name="merged: the mean is over the shards that adapt a layer",
        where="s3t_core/learning/merged.py::_with_mean_update",
        takes="added[which] / shards",
        puts="added[which] / max(len(names), 1)",
        fails="tests/exactness/test_merged.py::mean_update",
    ),
    Mutant(
        name="merged: an update is added to the one before",
        where="s3t_core/learning/merged.py::_with_mean_update",
        takes="tensor.data = own[which].clone()",
        puts="pass",
        fails="tests/exactness/test_merged.py::mean_update",
    ),
    Mutant(
        name="merged: one shard's head answers for all",
        where="s3t_core/learning/merged.py::merge_shards",
        takes="[each[name] for each in given]",
        puts="[given[0][name]]",
        fails="tests/exactness/test_merged.py::mean_update",
    ),
    Mutant(
        name="merged: whatever is on the model is merged",
        where="s3t_core/learning/merged.py::merge_shards",
        takes="set(adapters_of(layer)) - ours",
        puts="set()",
        fails="tests/exactness/test_merged.py::no_live_shard",
    ),
    Mutant(
        name="merged: a version answers by votes whatever it says",
        where="flows/adapters/served_model.py::_built",
        takes="document.combine",
        puts="'votes'",
        fails="tests/flows/test_merged.py::registered_from_then_on",
    ),
    Mutant(
        name="merged: what is measured is not what answers",
        where="flows/workspace/jobs.py::ReleaseEvaluator.score_on",
        takes="workspace.config.serving.combine",
        puts="'votes'",
        fails="tests/flows/test_merged.py::registered_from_then_on",
    ),
    Mutant(
        name="3: stages above stay on",
        where="s3t_core/learning/replica.py::StagedModel.activate",
        takes="[a for a in adapters_of(layer) if a in wanted]",
        puts="adapters_of(layer)",
        fails="tests/exactness/test_hazards.py::hazard_3",
    ),
    Mutant(
        name="4: keys omit the slices",
        where="s3t_core/learning/recipe.py::Recipe.stage_key",
        takes="list(slice_digests)",
        puts="[]",
        fails="tests/exactness/test_hazards.py::hazard_4",
    ),
    Mutant(
        name="12: activations of an erased slice stay",
        where="s3t_core/learning/activation_store.py::ActivationStore.allow",
        takes="*doomed",
        puts="",
        fails="tests/exactness/test_activations.py::after_an_erasure",
    ),
    Mutant(
        name="12: activations of an erased slice come back",
        where="s3t_core/learning/activation_store.py::ActivationStore.keeps",
        takes="self.limit > 0 and slice_digest in self._live()",
        puts="self.limit > 0",
        fails="tests/exactness/test_activations.py::after_an_erasure",
    ),
    Mutant(
        name="13: activations are not checked",
        where="s3t_core/learning/activation_store.py::ActivationStore.find",
        takes="not hmac.compare_digest(self._seal(key, path), kept)",
        puts="False",
        fails="tests/exactness/test_activations.py::damaged",
    ),
    Mutant(
        name="13: activations are named by less than decides them",
        where="s3t_core/learning/activations.py::states_key",
        takes=(
            "{'method': METHOD_VERSION, 'slice': slice_digest, 'rows': rows, 'layer': "
            "layer, 'backbone': recipe.backbone_digest, 'tokenizer': "
            "recipe.tokenizer_digest, 'max_length': recipe.max_length, 'dtype': "
            "recipe.training['dtype'], 'batch': _BATCH, 'profile': vars(recipe.profile)}"
        ),
        puts=(
            "{'method': METHOD_VERSION, 'slice': slice_digest, 'rows': rows, 'layer': "
            "layer, 'backbone': recipe.backbone_digest, 'tokenizer': "
            "recipe.tokenizer_digest, 'dtype': recipe.training['dtype'], 'batch': _BATCH, "
            "'profile': vars(recipe.profile)}"
        ),
        fails="tests/exactness/test_activations.py::everything",
    ),
    Mutant(
        name="serving: what shards share is computed under adapters",
        where="s3t_core/learning/ensemble.py::Ensemble._states",
        takes="self._staged.activate([])",
        puts="pass",
        fails="tests/exactness/test_batched_shards.py::every_combination",
    ),
    Mutant(
        name="serving: shards answer for each other",
        where="s3t_core/learning/batched_shards.py::BatchedShards.states",
        takes="self._order.index(i)",
        puts="i",
        fails="tests/exactness/test_batched_shards.py::every_combination",
    ),
    Mutant(
        name="13: a resumed backbone computes from other states",
        where="s3t_core/learning/split.py::SplitBackbone._layer",
        takes="index == self._first and self._given is not None",
        puts="False",
        fails="tests/exactness/test_split.py::resumed",
    ),
    Mutant(
        name="7: votes weighed",
        where="s3t_core/learning/ensemble.py::Ensemble._mean_probabilities",
        takes="len(self._shards)",
        puts="total.sum(1, keepdim=True) + 1",
        fails="tests/exactness/test_hazards.py::hazard_7_votes",
    ),
    Mutant(
        name="7: labels from the rows",
        where="s3t_core/learning/tasks/classification.py::Classification.head",
        takes="self.outputs",
        puts="1",
        fails="tests/exactness/test_hazards.py::hazard_7_the_label",
    ),
    Mutant(
        name="8: held-out rows decide",
        where="s3t_core/learning/stage.py::train_stage",
        takes="_fit(staged, name, in_order(parts, reader.reader), seed, reader.layer)",
        puts=(
            "_fit(staged, name, in_order(parts, reader.reader), seed + len(held_out), reader.layer)"
        ),
        fails="tests/exactness/test_hazards.py::hazard_8",
    ),
    Mutant(
        name="9: the seed knows the budget",
        where="s3t_core/learning/recipe.py::Recipe.seed",
        takes="{'seed': self.training['seed'], 'shard': shard, 'prefix': list(prefix)}",
        puts=(
            "{'seed': self.training['seed'], 'shard': shard, 'prefix': list(prefix), 'n': "
            "id(self) % 2 ** 40}"
        ),
        fails="tests/exactness/test_hazards.py::hazard_9_a_stage",
    ),
    Mutant(
        name="10: no seed of its own",
        where="s3t_core/learning/stage.py::train_stage",
        takes="torch.manual_seed(seed)",
        puts="",
        fails="tests/exactness/test_hazards.py::hazard_10",
    ),
    Mutant(
        name="11: merged into weights",
        where="s3t_core/learning/ensemble.py::Ensemble.__init__",
        takes="self._shards.append(ShardStages(names))",
        puts=(
            "self._shards.append(ShardStages(names))\n"
            "for m in self._staged._tuner_layers():\n"
            "    m.merge(adapter_names=[a for a in names.values() if a in m.lora_A])"
        ),
        fails="tests/exactness/test_hazards.py::hazard_11",
    ),
    Mutant(
        name="13: layout from a shared generator",
        where="s3t_core/learning/stage.py::batch_layout",
        takes="generator.shuffle(order)",
        puts="random.shuffle(order)",
        fails="tests/exactness/test_hazards.py::hazard_13",
    ),
    Mutant(
        name="store: loads are not verified",
        where="s3t_core/learning/store.py::StageStore.get",
        takes="got != digest",
        puts="False",
        fails="tests/unit/erasure/test_evidence.py::the_store_verifies",
    ),
    Mutant(
        name="a binding's seal leaves out the key",
        where="s3t_core/learning/store.py::StageStore._seal",
        takes="keyed_digest(self._key, 'stage binding', key, digest)",
        puts="keyed_digest(self._key, 'stage binding', digest)",
        fails="tests/faults/test_hostile.py::passed_off",
    ),
    Mutant(
        name="a version copies its stages",
        where="s3t_core/learning/store.py::StageStore.place",
        takes="path.hardlink_to(self.blobs.root / path.name)",
        puts="raise OSError",
        fails="tests/flows/test_walk.py::costs_no_copy",
    ),
    Mutant(
        name="profile: bfloat16 by the machine stands in no key",
        where="s3t_core/learning/recipe.py::make_recipe",
        takes="training['dtype'] = 'bfloat16' if low else 'float32'",
        puts="pass",
        fails="tests/exactness/test_hazards.py::left_to_the_machine",
    ),
    Mutant(
        name="profile: what the machine computes stands in no key",
        where="s3t_core/learning/stage.py::numeric_profile",
        takes="fingerprint(threads, device)",
        puts="''",
        fails="tests/exactness/test_profile.py::changes_the_fingerprint",
    ),
    Mutant(
        name="profile: what a tokenizer in Python uses stands in no key",
        where="s3t_core/learning/stage.py::numeric_profile",
        takes="tokenizer_code(backbone)",
        puts="__import__('tokenizers').__version__",
        fails="tests/exactness/test_profile.py::whatever_the_tokenizer",
    ),
    Mutant(
        name="profile: a shell chooses kernels",
        where="s3t_core/learning/preload.py",
        takes="pin(os.environ)",
        puts="pass",
        fails="tests/exactness/test_profile.py::two_shells",
    ),
    Mutant(
        name="profile: a machine of another one trains",
        where="s3t_core/learning/jobs.py::train",
        takes="profile != job.recipe.profile",
        puts="False",
        fails="tests/exactness/test_backbones.py::another_numeric_profile",
    ),
    Mutant(
        name="profile: activations of another one are used",
        where="s3t_core/learning/activations.py::states_key",
        takes="vars(recipe.profile)",
        puts="''",
        fails="tests/exactness/test_profile.py::kept_under_another",
    ),
    Mutant(
        name="profile: a version of two is loaded",
        where="s3t_core/learning/release.py::parse_release_document",
        takes="check_one_recipe(release, recipe)",
        puts="",
        fails="tests/exactness/test_profile.py::one_recipe",
    ),
    Mutant(
        name="backbone: a hub id without its commit",
        where="s3t_core/learning/hub.py::pinned_hub_id",
        takes="not is_commit(revision)",
        puts="False",
        fails="tests/flows/test_hub.py::names_no_commit",
    ),
    Mutant(
        name="backbone: another commit than the one named",
        where="s3t_core/learning/backbone.py::_locate",
        takes="_(revision=commit)",
        puts="",
        fails="tests/flows/test_hub.py::names_no_commit",
    ),
    Mutant(
        name="store: what lies deeper is its own",
        where="s3t_core/learning/store.py::StageStore._names",
        takes="_NAME.fullmatch(n)",
        puts="n.endswith((_ARTIFACT, _SIDECAR))",
        fails="tests/unit/adapters/test_marks.py::lies_deeper",
    ),
    Mutant(
        name="placement: layers that are trained through lie on disk",
        where="s3t_core/learning/device_map.py::device_map",
        takes="at == len(devices) and index >= lowest",
        puts="False",
        fails="tests/exactness/test_device_map.py::must_have_a_device",
    ),
    Mutant(
        name="profile: a fork server that torch came first to dies",
        where="s3t_core/learning/preload.py",
        takes="GuaranteeError",
        puts="KeyError",
        fails="tests/exactness/test_profile.py::at_its_start",
    ),
    Mutant(
        name="payload: the first of several columns",
        where="s3t_core/learning/payload.py::_chosen",
        takes="len(names) == 1",
        puts="names",
        fails="tests/unit/learning/test_payload.py::does_not_quote",
    ),
    Mutant(
        name="payload: the column that is named is not taken",
        where="s3t_core/learning/payload.py::_chosen",
        takes="column and column in names",
        puts="False",
        fails="tests/unit/learning/test_payload.py::named_column",
    ),
    Mutant(
        name="payload: a missing value is a text",
        where="s3t_core/learning/payload.py::_checked",
        takes="if wrong: ...",
        puts="if False: ...",
        fails="tests/unit/learning/test_payload.py::does_not_quote",
    ),
    Mutant(
        name="threads that wait spin",
        where="s3t_core/learning/pins.py::wait_without_spinning",
        takes="environment.setdefault(name, value)",
        puts="pass",
        fails="tests/exactness/test_profile.py::wait_asleep",
    ),
    Mutant(
        name="no file: the stage store waits for a pipe",
        where="s3t_core/learning/store.py::LocalBlobs.read",
        takes="read_regular(path) if path.is_file() else None",
        puts="path.read_bytes()",
        fails="tests/faults/test_leftovers.py::in_the_stage_store",
    ),
)
