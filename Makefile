# Two commands matter: `make demo` and `make test`. Both make the environment first; nothing else is set up by hand.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := runs/demo
PYTEST := $(BIN)/python -m pytest

.PHONY: env demo test test-all check lint manifests bench gpu clean
.DEFAULT_GOAL := demo

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.10, 3.11 or 3.12 with venv found; name one: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,cagrad,kubernetes,lidc,nash_mtl]'
	@touch $@

demo: env
	$(BIN)/mtids-dist phantom $(RUN)/phantom --config configs/demo.yaml
	$(BIN)/mtids-dist prepare $(RUN)/phantom/dicom $(RUN)/phantom/nodes.csv $(RUN)/store --config configs/demo.yaml
	$(BIN)/mtids-dist train configs/demo.yaml
	$(BIN)/mtids-dist evaluate $(RUN)/run $(RUN)/store
	$(BIN)/mtids-dist report $(RUN)/run

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint
	$(PYTEST) -q -n 2 -m "not slow and not long"

# Fast tests side by side and over more examples; those that start Ray or several ranks one after the other.
test: env
	HYPOTHESIS_PROFILE=full $(PYTEST) -q -n 2 -m "not slow and not long"
	$(PYTEST) -q -m "slow and not long" --durations=10

test-all: test
	$(PYTEST) -q -m long

# jobs/ and the cluster of cluster/kubernetes are what the verb makes of the command in their first line.
manifests: env
	@for file in jobs/*.yaml cluster/kubernetes/base/raycluster.yaml; do \
	  command=$$(sed -n '1s/^# //p' $$file); { echo "# $$command"; $(BIN)/$$command; } > $$file.new && mv $$file.new $$file; done

bench: env
	$(BIN)/python benchmarks/lidc_readings.py

gpu: env
	$(PYTEST) -q -m gpu
	$(BIN)/python benchmarks/gpu

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
