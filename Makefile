# Works with GNU make 3.81 and later. `make` or `make help` lists the targets.

PYTHON      ?= python3
VENV        := .venv
BIN         := $(VENV)/bin
STAMP       := $(VENV)/.installed
VERSION     := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
CHART       := charts/session-policy-operator

# Builds an image: takes the arguments of `docker build`.
IMAGE_BUILD ?= docker build
# Hands an image to the cluster: called with NAME:TAG. Empty: the cluster pulls images itself, or kind is used.
IMAGE_LOAD  ?=
BASE_IMAGE  ?=
PYTEST_ARGS ?=
BENCH_ARGS  ?=

IMAGES      := session-policy-controller:$(VERSION) session-policy-job:$(VERSION)
STORES      := session-policy-e2e-stores:$(VERSION)
BUILD_ARGS  := $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE))
# Prints which tests took longest. The workers are counted in tests/conftest.py.
PYTEST      := $(BIN)/pytest -n auto --dist loadgroup --durations=15 --durations-min=1 $(PYTEST_ARGS)
# Left out while one works on the code: what is random, every case of a matrix, or many seconds long.
QUICK       := -m 'not exhaustive' --hypothesis-profile=few
TESTS       := tests/unit tests/stores tests/controlplane

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all unit stores controlplane lint lint-python lint-chart format crds chart-docs manifests images e2e-images e2e bench mutations pictures clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make the virtual environment in .venv

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or later is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "python3 -m venv failed (on Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## Run a policy on 20,000 sessions in embedded PostgreSQL and Redis
	@$(BIN)/session-policy demo

test: $(STAMP) ## Run the tests that need no cluster, but for exhaustive ones
	$(PYTEST) $(QUICK) $(TESTS)

test-all: $(STAMP) ## Run all tests that need no cluster: unit, stores, controlplane
	$(PYTEST) $(TESTS)

unit: $(STAMP) ## Run all tests of pure functions
	$(PYTEST) tests/unit

stores: $(STAMP) ## Run all tests against real PostgreSQL, SQLite, MariaDB and Redis
	$(PYTEST) tests/stores

controlplane: $(STAMP) ## Run all tests against a real kube-apiserver (KUBEBUILDER_ASSETS)
	$(PYTEST) tests/controlplane

lint: lint-python lint-chart ## Check code, types, imports, Dockerfiles and chart

lint-python: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile tests/e2e/Dockerfile

lint-chart: $(STAMP)
	$(BIN)/python -m tools.chart_lint $(CHART)

format: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

crds: $(STAMP) ## Write what is generated from the models: CRDs, the chart's copies of them, field references
	@mkdir -p crds $(CHART)/files/crds
	@set -e; for kind in sessionpolicies sessionrevocations; do \
	  $(BIN)/session-policy crd $$kind > crds/.new && mv crds/.new crds/$$kind.yaml; \
	  cp crds/$$kind.yaml $(CHART)/files/crds/$$kind.yaml; \
	done
	@set -e; for kind in sessionpolicy sessionrevocation; do \
	  $(BIN)/python -m policy.reference $$kind > docs/reference/$$kind.md; \
	done

chart-docs: $(STAMP) ## Write the chart's values.yaml and README table from its values schema
	$(BIN)/python -m tools.chart_docs $(CHART)

manifests: $(STAMP) ## Write the manifests for `kubectl apply -k` from the chart
	$(BIN)/python -m tools.manifests .

images: ## Build the controller's and the job's image with $(IMAGE_BUILD)
	$(IMAGE_BUILD) -t session-policy-controller:$(VERSION) --target controller $(BUILD_ARGS) .
	$(IMAGE_BUILD) -t session-policy-job:$(VERSION) --target job $(BUILD_ARGS) .

e2e-images: images
	$(IMAGE_BUILD) -t $(STORES) $(BUILD_ARGS) tests/e2e

e2e: $(STAMP) e2e-images ## Test images and chart on a cluster: KUBECONFIG, or kind where Docker is
	@IMAGE_LOAD='$(IMAGE_LOAD)' IMAGES='$(IMAGES) $(STORES)' VERSION='$(VERSION)' PYTEST='$(BIN)/pytest' \
	  sh tests/e2e/run.sh $(PYTEST_ARGS)

bench: $(STAMP) ## Hold the cleanup run against its goals, and measure the operator (KUBEBUILDER_ASSETS); BENCH_ARGS=--help
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

mutations: $(STAMP) ## Break the code for each requirement, and check that its tests notice: half an hour
	$(BIN)/python -m tools.mutations

pictures: $(STAMP) ## Draw the documentation's pictures of dashboard and trace from real runs (KUBEBUILDER_ASSETS, prometheus)
	$(BIN)/python -m tools.pictures

clean: ## Remove the virtual environment, caches and build output
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
