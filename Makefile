# kubeyolo: `make demo` and `make test` need no other command on a fresh machine.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CACHE ?= $(or $(KUBEYOLO_CACHE),$(HOME)/.cache/kubeyolo)
TOOLS := $(CACHE)/bin
MINIO_VERSION := v0.0.0-20260212201848-7aac2a2c5b7c
DATA ?=
STORE ?= store
JOBS ?= 2
ENGINE ?= docker
REGISTRY ?=
BASE_IMAGE ?=
DEVICE ?= cpu
CHIP ?= 910b
BUILD_FLAGS ?=
ONLY ?=
MODEL ?=
ATTACK ?= ../shared/attack
WEIGHTS ?=
CASES ?=
# Each worker runs one file at a time, with one thread: the tests of a file share its fixtures, and cores are few.
# tests/conftest.py sets the order: the longest files first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup system tools demo test test-all test-cluster test-images accept attack ci lint types format manifests-check bench pipelines images lock clean

help: ## List all targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "kubeyolo needs Python 3.11; $(PYTHON) is another version: make PYTHON=/path/to/python3.11 ..."; exit 2; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(READY) ## Create the virtual environment with the locked dependencies.

system: ## Install Chromium for the report tests (on Debian, as root); elsewhere print a hint.
	@if command -v chromium >/dev/null || [ -n "$$CHROMIUM_BIN" ]; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else echo "no Chromium: the report tests that need a browser are skipped; install chromium or set CHROMIUM_BIN"; fi

tools: $(READY) ## Build the servers that tests start, once: MinIO and a Kubernetes API server (need Go, about 8 minutes), MLServer.
	@if [ -n "$$MINIO_BIN" ] || command -v minio >/dev/null || [ -x $(TOOLS)/minio ]; then :; \
	elif command -v go >/dev/null; then \
	  echo "building the MinIO server into $(TOOLS)" && GOBIN=$(TOOLS) go install github.com/minio/minio@$(MINIO_VERSION); \
	else echo "no MinIO server and no Go to build one: the tests that need it are skipped; set MINIO_BIN"; fi
	@if [ -n "$$KUBEYOLO_KUBERNETES_BIN" ] || [ $(TOOLS)/kubectl -nt tests/tools/go.mod ]; then :; \
	elif command -v go >/dev/null; then \
	  echo "building the Kubernetes API server into $(TOOLS)" && \
	  go -C tests/tools build -o $(TOOLS)/etcd go.etcd.io/etcd/server/v3 && \
	  for name in kube-apiserver kube-controller-manager kubectl; do \
	    go -C tests/tools build -o $(TOOLS)/$$name k8s.io/kubernetes/cmd/$$name || exit 1; \
	  done; \
	else echo "no Kubernetes API server and no Go to build one: the tests that need it are skipped; set KUBEYOLO_KUBERNETES_BIN"; fi
	@if [ -n "$$KUBEYOLO_MLSERVER" ] || [ $(TOOLS)/mlserver/.installed -nt tests/tools/mlserver.txt ]; then :; \
	else \
	  echo "installing MLServer into $(TOOLS)/mlserver" && rm -rf $(TOOLS)/mlserver && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target $(TOOLS)/mlserver -r tests/tools/mlserver.txt && \
	  touch $(TOOLS)/mlserver/.installed; \
	fi

demo: $(READY) ## Run the whole pipeline on this machine: on generated sample data, or on DATA=dir (STORE=uri).
	$(BIN)/kubeyolo run --config examples/demo.yaml --store "$(STORE)" $(if $(DATA),--data "$(DATA)",--sample)

test: $(READY) system tools ## Run all tests except tests of the large models.
	$(PYTEST) -m "not large"

test-all: $(READY) system tools ## Run all tests, including tests of the large models.
	$(PYTEST)

test-cluster: $(READY) tools ## Run tests/cluster on the cluster that KUBECONFIG and KUBEYOLO_KFP_HOST name.
	$(BIN)/python -m pytest tests/cluster

test-images: $(READY) ## Test the images that `make images` has built: ENGINE=docker|podman.
	ENGINE=$(ENGINE) $(BIN)/python -m pytest tests/images

lint: $(READY) ## Check style, imports between rooms, and that compiled pipelines and generated tables are up to date.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pipelines.compile --check
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows docs/ci/github.yml docs/ci/github-runner.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions action.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci docs/ci/gitlab.yml docs/ci/gitlab-runner.yml

types: $(READY) ## Check types.
	$(BIN)/mypy

format: $(READY) ## Format the code.
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

ci: lint types test ## Run the checks of CI: lint, types, test.

accept: $(READY) ## Run the long tests: each network learns 8 photographs by heart (MODEL="yolov3 yolov5s" runs some).
	OMP_NUM_THREADS=1 MODEL="$(MODEL)" $(BIN)/python -m pytest -s tests/accept

attack: $(READY) ## Run the rig of hostile inputs: ATTACK=folder, WEIGHTS=yolov5n.pt, CASES=part of a name; about an hour.
	@if [ ! -f "$(ATTACK)/setup.sh" ]; then echo "no rig of hostile inputs in $(ATTACK); give ATTACK=FOLDER. make test runs tests/attack, a selection of every kind"; exit 2; fi
	@if [ ! -f "$(WEIGHTS)" ]; then echo "give WEIGHTS=FILE, a published yolov5n.pt or another checkpoint that imports as yolov5n-r7"; exit 2; fi
	KUBEYOLO=$(abspath $(BIN)/kubeyolo) PY=$(abspath $(BIN)/python) WEIGHTS=$(abspath $(WEIGHTS)) DATA=$(ATTACK)/../data/coco_cc bash $(ATTACK)/setup.sh
	cd /tmp/kubeyolo-attack && for part in data config bundles; do KUBEYOLO=$(abspath $(BIN)/kubeyolo) nice $(abspath $(BIN)/python) gen_$$part.py $(CASES) || exit 1; done && $(abspath $(BIN)/python) final.py

manifests-check: $(READY) tools ## Apply the manifests to a real API server; check rights and levels.
	$(BIN)/python -m pytest tests/manifests -q

bench: $(READY) ## Measure the speed of training, loading, non-maximum suppression, evaluation and prediction.
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.nms
	$(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.prediction
	$(BIN)/python -m benchmarks.coco_metrics

pipelines: $(READY) ## Compile the pipelines to kubeyolo/compiled, and write the generated tables of docs and READMEs.
	$(BIN)/python -m pipelines.compile

images: ## Build the images of the steps: ENGINE=docker|podman BASE_IMAGE=… DEVICE=cpu|ascend CHIP=910b|a3 ONLY=…; REGISTRY=… pushes them.
	$(PYTHON) docker/build.py --engine $(ENGINE) --registry "$(REGISTRY)" --base-image "$(BASE_IMAGE)" --device $(DEVICE) --chip $(CHIP) --flags="$(BUILD_FLAGS)" $(ONLY)

lock: ## Write constraints.txt from pyproject.toml again, with the newest versions.
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet -U pip
	build/lock/bin/pip install --quiet 'mindspore==2.7.0' -e '.[dev,ascend]'
	{ echo "# The versions that are tested together; made by \`make lock\`."; build/lock/bin/pip freeze --exclude-editable; } > constraints.txt

clean: ## Remove the folders runs, store and build, and caches of tools; keep the environment.
	rm -rf runs store build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
