# Each target installs what it needs; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# One more than the cores of a small machine: four were slower. Many tests wait for processes, servers and browsers.
TEST_WORKERS ?= 3
# Each worker starts with consecutive files, so that the fixtures of a file are made once, and steals work from others
# at its end.
SPREAD := --dist worksteal
# Where bytecode is not written, each of hundreds of processes would compile the package, and each worker all tests.
test test-all: export PYTHONDONTWRITEBYTECODE =
# graphene is pinned because the resolver otherwise picks an old version that MLflow does not work with.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
LOCK := $(COMPILE) setup.cfg --upgrade-package graphene==3.4.3

.PHONY: help install quickstart test test-all check format bench strategies quality docker lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make .venv with the imagetune command

# uv installs in seconds what takes pip a minute; pip is the fallback where only pip is configured for a private index.
# It is itself installed by its hash, as everything else.
$(VENV)/.installed: setup.cfg pyproject.toml requirements-dev.lock requirements-uv.lock
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] < (3, 14) else "imagetune needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements-dev.lock \
	  || $(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable . \
	  || $(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

quickstart: install ## Fine-tune on the shipped images
	$(BIN)/imagetune fit recipes/quickstart.yaml

test: install ## Run the quick tests
	$(BIN)/pytest -m "not slow" -n $(TEST_WORKERS) $(SPREAD)

test-all: install ## Run all tests, the long ones too
	$(BIN)/pytest -n $(WORKERS) $(SPREAD)

check: install ## Check format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Takes half an hour on two cores; the --help of each script has options for more. benchmarks/gpu.py needs a GPU.
bench: install ## Run the benchmarks of docs/performance.md
	for name in start pipeline head_stage search step evaluation predict export scale oracles; do $(BIN)/python -m benchmarks.$$name || exit 1; done

strategies: install ## Measure the table of docs/strategies.md (hours; it resumes)
	$(BIN)/python -m benchmarks.strategies --workers $(WORKERS) --write

quality: install ## Measure the tables of docs/quality.md (a day; it resumes)
	$(BIN)/python -m benchmarks.quality && $(BIN)/python -m benchmarks.quality --table

# PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:... pins the base image, whose tag moves; docs/docker.md says how.
docker: ## Build the CPU image
	docker build --target cpu --tag imagetune $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) .

lock: install ## Resolve the dependencies and write the lock files again
	echo "uv>=0.8,<1" | $(COMPILE) - --output-file requirements-uv.lock
	$(LOCK) --output-file requirements.lock
	$(LOCK) --extra gpu --output-file requirements-gpu.lock
	$(LOCK) --extra dev --extra hed --extra lite --output-file requirements-dev.lock

clean: ## Remove what the targets made, except runs/ and mlflow.db
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
