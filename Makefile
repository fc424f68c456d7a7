# `make help` lists what there is. Everything runs in .venv, which is made on first use.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN_DIR ?= .run

.DEFAULT_GOAL := help
.PHONY: help venv run test lint bench clean conformance conformance-tools dist man completion tree rpm package-test image manifests

help: ## Explain the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Made anew when what it is built from changes. The package is installed in place (editable), so Python
# sources need no reinstall.
$(VENV)/.ready: setup.py pyproject.toml $(wildcard native/*) $(wildcard proto/*/*.proto) $(wildcard proto/*/*/*.proto)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=python3.x" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

venv: $(VENV)/.ready ## Make .venv with the package and what its tests need

run: $(VENV)/.ready ## Run the agent and a development kubelet in ./.run, until Ctrl-C
	@$(BIN)/kata-node-agent dev --dir $(RUN_DIR)

test: $(VENV)/.ready ## Run the tests (those on real parts where the parts are here)
	$(BIN)/pytest

lint: $(VENV)/.ready ## ruff, mypy strict, C warnings as errors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) -s -C native lint

bench: $(VENV)/.ready ## Measure, each figure beside a peer or a floor of the same run
	$(BIN)/python -m bench $(BENCH_FLAGS)

# The same sources give the same pages: their date is that of the last change.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)
export SOURCE_DATE_EPOCH

man: $(VENV)/.ready ## Write the manual pages into build/man/, for `man -M build/man`
	rm -rf build/man
	$(BIN)/python -m tools.manual build/man

completion: $(VENV)/.ready ## Write the completion of bash, zsh and fish into build/completion/
	rm -rf build/completion
	$(BIN)/python -m tools.completion build/completion

dist: $(VENV)/.ready ## Build the sdist and the wheel into dist/, with manual and completion
	rm -rf generated dist/*.whl dist/*.tar.gz dist/*.rpm
	$(BIN)/python -m tools.manual generated/man
	$(BIN)/python -m tools.completion generated/completion
	$(BIN)/pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --outdir dist . >generated/build.log 2>&1 || { cat generated/build.log; exit 1; }

# The Python that goes into the packages: Debian's, of which libraries and licences are known.
PACKAGED_PYTHON ?= /usr/bin/python3
TREE := build/tree

tree: dist ## Make the tree of the self-contained packages in build/tree (needs python3-dev, checkpolicy, semodule-utils)
	$(PACKAGED_PYTHON) packages/tree.py --wheel dist/*.whl $(TREE)

rpm: tree ## Build the RPM, which needs nothing on its host, into dist/ (needs rpm)
	$(PACKAGED_PYTHON) packages/rpm.py $(TREE) dist

package-test: $(VENV)/.ready ## Try what `make rpm` made: the RPM in an empty tree and in a booted one, the image in podman (as root)
	@ls dist/*.rpm >/dev/null 2>&1 || { echo "there is no RPM in dist/: run make rpm first"; exit 1; }
	PACKAGE_RPM=$$(ls dist/*.rpm) PACKAGE_TREE=$(TREE) $(BIN)/pytest tests/packages \
		tests/systemd/test_package.py tests/systemd/test_sandbox.py

image: tree ## Build the container image, which is the same tree and nothing else (needs podman)
	podman build --tag kata-node-agent:latest --file packages/Containerfile --timestamp $(SOURCE_DATE_EPOCH) $(TREE)

conformance-tools: ## Build the real kubelet, containerd … for `make conformance` (minutes, once; needs Go)
	tests/conformance/tools/build

manifests: ## Make deploy/openshift/machineconfig.yaml anew from its source (needs Go)
	bin=$$(tests/conformance/tools/build) && $$bin/butane --strict --files-dir systemd/quadlet \
		deploy/openshift/machineconfig.bu --output deploy/openshift/machineconfig.yaml

conformance: tree ## Try the agent with the real kubelet, containerd and CRI-O (as root; README.md says what it needs)
	bin=$$(tests/conformance/tools/build) && CONFORMANCE_BIN=$$bin PACKAGE_TREE=$(TREE) $(BIN)/pytest tests/conformance

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(RUN_DIR) build dist generated .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf agent/*.egg-info agent/kata_node_agent/_native*.so agent/kata_node_agent/pb/*_pb2*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
