"""What DVC, git, MLflow and others write into a workspace of their own accord, beside the schemas
of their databases: names that stand in places which are searched, and which nobody can take out
there."""

NAMES = """
files/md5 .dvc/cache/files/md5 .s3t/remote/files/md5 .s3t/dvc-site/repo hashes/local/cache.db
links/cache.db
index/data/db.db cache.db cache.db-wal cache.db-shm db.db db.db-wal db.db-shm dvc-site .dvc/tmp
rwlock rwlock.lock btime
config.local .dvc/config .dvc/.gitignore check_update analytics autostage hardlink symlink
# Add patterns of files dvc should ignore, which could improve
# the performance. Learn more at
# https://dvc.org/doc/user-guide/dvcignore
hash: md5 nfiles outs: hash_info data.dvc data.dvc.lock dvc.yaml dvc.lock

cull_limit disk_min_file_size disk_pickle_protocol eviction_policy least-recently-stored
least-frequently-used
least-recently-used size_limit tag_index sqlite_auto_vacuum sqlite_cache_size sqlite_journal_mode
sqlite_mmap_size
sqlite_synchronous sqlite_sequence expire_time store_time access_time access_count 1073741824
67108864

s3t@localhost refs/heads/main refs/heads/master refs/heads refs/tags objects/info objects/pack
COMMIT_EDITMSG ORIG_HEAD
FETCH_HEAD packed-refs logs/HEAD logs/refs/heads/main info/exclude repositoryformatversion
logallrefupdates
refs/remotes/origin 100644 100755 040000 e69de29bb2d1d6434b8b29ae775ad8c2e48c5391
0000000000000000000000000000000000000000 (initial)

mlflow.db mlartifacts mlruns Default/mlruns artifacts/release release.json s3t-release/2
artifact_path code_model
loader_module mlflow.pyfunc.loaders.code_model mlflow.pyfunc.model mlflow.pyfunc.loaders
python_function python_version
python_env.yaml python_env conda.yaml conda-forge mlflow-env dependencies build_dependencies
requirements.txt
requirements cloudpickle_version champion.py model_code_path model_config model_size_bytes
model_uuid mlflow_version
input_example input_example.json saved_input_example_info serving_input_example
serving_input_example.json
serving_input_path json_object pandas_orient is_signature_from_type_hint type_hint_from_example
utc_time_created
signature artifacts resources auth_policy prompts virtualenv dataframe_split dataframe_records
RUN_OUTPUT MODEL_OUTPUT RUN_INPUT MODEL_INPUT FINISHED RUNNING SCHEDULED DELETED UNKNOWN
PENDING_REGISTRATION
lifecycle_stage activefile mlflow.runName mlflow.parentRunId mlflow.source.name mlflow.source.type
mlflow.source.git.commit mlflow.user mlflow.note.content mlflow.log-model.history mlflow.modelId
mlflow.experimentKind mlflow.artifactLocation __main__ artifact_bytes held_out_accuracy
stages_trained

ARROW:schema parquet-cpp-arrow __index_level_0__ __metadata__ safetensors created_by num_rows

prefect.db prefect/storage flow_run task_run deployment work_pool work_queue flow-run task-run
SCHEDULED PENDING
COMPLETED CANCELLED CRASHED CANCELLING AwaitingRetry state_type state_name expected_start_time
next_scheduled_start_time
estimated_run_time infrastructure_pid concurrency_limit prefect-client prefect.flow-run
prefect.task-run
prefect.deployment prefect.work-pool prefect.resource.id prefect.resource.role
"""
"""Words and lines, as they are written there."""
