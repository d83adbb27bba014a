# Every target sets itself up: a virtual environment is made once, and remade when the
# dependencies change. `make clean` removes it.
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
EXTRAS := dev,cell,md,log,bench
# Processes that share the tests.
JOBS ?= 2

# Networks as small as these gain nothing from a second thread.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint bench docs clean

demo: $(READY)
	$(PY) -m sciflow.cli demo

test: lint
	$(PY) -m pytest -n $(JOBS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

bench: $(READY)
	$(PY) -m benchmarks

docs: $(VENV)/.docs
	$(PY) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo docs/_build/html/index.html

$(VENV)/.docs: $(READY)
	$(PY) -m pip install -q -c constraints.txt -e ".[$(EXTRAS),docs]"
	touch $@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf $(VENV) out
