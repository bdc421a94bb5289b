# Needs Python 3.11 to 3.13, make and a package index; everything else is installed into folders here.
VENV := .venv
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)
ARGS ?=
UV_VERSION := 0.13.9
# Some machines set it: each process then compiles all modules that it imports again, for seconds.
unexport PYTHONDONTWRITEBYTECODE

# A virtual environment is named up to date by a stamp that carries the checksum of what it was built from (and of this
# folder's path, which the scripts in it contain), so that touching a file rebuilds nothing and changing one does.
checksum = $(shell { echo "$(CURDIR)"; cat pyproject.toml $(1); } | cksum | cut -d ' ' -f 1)
TRAIN_STAMP := .installed-$(call checksum,requirements/train.lock)
ORACLES_STAMP := .installed-$(call checksum,requirements/train.lock requirements/oracles.lock)

find_python = $$(sh .ci/find-python $(1))
ANY_PYTHON = $(call find_python,python3 python3.11 python3.12 python3.13)
PIP_INSTALL = -m pip install -qq --disable-pip-version-check

# $(1) the folder, $(2) the Python. The locked versions, checked by hash, then this project itself in place. Python
# compiles the few modules that are imported when they are; all of tensorflow's would take a minute.
define build_venv
	@echo "installing the locked dependencies into $(1) (several hundred MB to download the first time)"
	@python="$(2)" && rm -rf $(1) && "$$python" -m venv $(1)
	@$(1)/bin/python $(PIP_INSTALL) --no-compile --require-hashes -r requirements/train.lock
	@$(1)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
endef

PARALLEL = -n $(WORKERS) --dist worksteal
FAST = $(PARALLEL) -m "not slow and not multiprocess and not oracles"
# XLA's CPU programs without the newer emitters, and for models without LLVM's optimisations: they compile much faster,
# which is most of what tests wait for. Fits compute for longer than unoptimised programs compile. What depends on how a
# program is compiled is proved by tests that take the flags away, as the end-to-end tests do, by the multi-process ones,
# and by the meshes on the newest jax.
QUICK_FITS = XLA_FLAGS="$$XLA_FLAGS --xla_cpu_use_fusion_emitters=false"
QUICK_XLA = XLA_FLAGS="$$XLA_FLAGS --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
FITS = tests/test_analysis_*.py tests/test_published_*.py tests/test_cli.py
NO_FITS = --ignore-glob="*/test_analysis_*" --ignore-glob="*/test_published_*" --ignore-glob="*/test_cli.py"

# What meets the interfaces of jax, flax, optax, orbax and Python: every mixer in random models, training, checkpoints,
# decoding, workers, data, a fit, the commands, meshes. Everything else is built of the same calls.
NEWEST = $(addprefix tests/test_,models.py training.py optim.py generation.py frozen_oracles.py encoder_decoder.py \
	execution.py data_prepare.py data_batches.py data_token_file.py runs.py plan_folder.py config.py identity.py \
	checkpoints.py packaging.py cli.py analysis_fitting.py analysis_uncertainty.py)

# pytest leaves with 5 when a tier has no test; that is no failure of the slow tiers.
OR_NO_TESTS = || { code=$$?; test $$code -eq 5 && echo "this tier has no tests"; }

.PHONY: help demo test test-slow test-oracles test-newest test-install benchmark lint format lock clean ci

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/$(TRAIN_STAMP) ## the main job: an isoFLOP experiment from the corpus to the checked law (resumes after Ctrl-C)
	$(VENV)/bin/isoflop run experiments/isoflop_transformer.py $(ARGS)

test: $(VENV)/$(TRAIN_STAMP) ## the fast tests, on every core (ARGS="-k name" chooses, WORKERS=n)
	$(QUICK_FITS) $(VENV)/bin/python -m pytest $(FAST) $(FITS) $(ARGS) $(OR_NO_TESTS)
	$(QUICK_XLA) $(VENV)/bin/python -m pytest $(FAST) $(NO_FITS) $(ARGS) $(OR_NO_TESTS)

test-slow: $(VENV)/$(TRAIN_STAMP) ## the slow tests on every core, then the multi-process ones, one at a time
	$(QUICK_FITS) $(VENV)/bin/python -m pytest $(PARALLEL) -m "slow and not multiprocess and not oracles" $(FITS) $(ARGS) \
		$(OR_NO_TESTS)
	$(QUICK_XLA) $(VENV)/bin/python -m pytest $(PARALLEL) -m "slow and not multiprocess and not oracles" $(NO_FITS) $(ARGS) \
		$(OR_NO_TESTS)
	$(VENV)/bin/python -m pytest -m "multiprocess and not oracles" $(ARGS) $(OR_NO_TESTS)

test-oracles: .venv-oracles/$(ORACLES_STAMP) ## parity with torch and transformers, in .venv-oracles
	$(QUICK_XLA) .venv-oracles/bin/python -m pytest $(PARALLEL) -m oracles $(ARGS) $(OR_NO_TESTS)

test-newest: ## what meets jax, flax and Python of the fast tests, on Python 3.13 or 3.12 with the newest of them
	@python="$(call find_python,python3.13 python3.12)" || \
		{ echo "SKIPPED: no Python 3.12 or 3.13 here to run the fast tests with the newest jax and flax"; exit 0; }; \
	$(MAKE) --no-print-directory .venv-newest NEWEST_PYTHON="$$python" && \
	XLA_FLAGS="$$XLA_FLAGS --xla_backend_optimization_level=0" .venv-newest/bin/python -m pytest $(FAST) $(NEWEST) $(ARGS) && \
	.venv-newest/bin/python -m pytest $(PARALLEL) tests/test_sharding.py $(ARGS)

test-install: ## pip install . in .venv-analysis: the analysis works without flax and tensorflow
	@python="$(ANY_PYTHON)" && sh .ci/check-install "$$python"

benchmark: .venv-oracles/$(ORACLES_STAMP) ## the speed ratios, one process a file
	@set -e; for file in tests/benchmarks/*.py; do echo "== $$file"; .venv-oracles/bin/python "$$file" $(ARGS); done

lint: $(VENV)/$(TRAIN_STAMP) ## ruff's rules and format, the shell scripts' syntax
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	bash -n .ci/run tpu_scripts/*.sh
	sh -n .ci/find-python .ci/check-install
	@if command -v shellcheck > /dev/null; then shellcheck .ci/* tpu_scripts/*.sh; else echo "no shellcheck: skipped"; fi

format: $(VENV)/$(TRAIN_STAMP) ## ruff's fixes and format, in place
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock: ## the lock files again from pyproject.toml, keeping pinned versions that still fit (ARGS=--upgrade: the newest)
	@python="$(ANY_PYTHON)" && test -x .venv-lock/bin/uv || "$$python" -m venv .venv-lock
	@.venv-lock/bin/python $(PIP_INSTALL) uv==$(UV_VERSION)
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --custom-compile-command "make lock" $(ARGS) \
		--generate-hashes --extra train --extra search --extra structured --extra test \
		--output-file requirements/train.lock pyproject.toml
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --custom-compile-command "make lock" $(ARGS) \
		--constraint requirements/train.lock --extra oracles --extra pretrained --output-file requirements/oracles.lock pyproject.toml

clean: ## remove what was built here; runs/ and the cache folder stay
	rm -rf .venv .venv-* build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

ci: ## everything that must pass before a change lands
	bash .ci/run

$(VENV)/$(TRAIN_STAMP):
	$(call build_venv,$(VENV),$(ANY_PYTHON))
	@touch $@

# torch is pinned by version and not by hash: its CPU and CUDA builds are different files of one version. What the lock does
# not name is not installed, whatever the packages ask for. Everything else is $(VENV)'s, which this environment looks into.
.venv-oracles/$(ORACLES_STAMP): $(VENV)/$(TRAIN_STAMP)
	@echo "installing torch and transformers into .venv-oracles"
	@rm -rf .venv-oracles && $(VENV)/bin/python -m venv .venv-oracles
	@train=$$($(VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") && \
		own=$$(.venv-oracles/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") && \
		echo "import site; site.addsitedir('$$train')" > "$$own/train.pth"
	@.venv-oracles/bin/python $(PIP_INSTALL) --no-compile --no-deps -r requirements/oracles.lock
	@touch $@

# Built anew each time, because the newest jax and flax are looked up when it is built.
.PHONY: .venv-newest
.venv-newest:
	$(call build_venv,.venv-newest,$(NEWEST_PYTHON))
	@.venv-newest/bin/python $(PIP_INSTALL) --no-compile --upgrade jax flax
