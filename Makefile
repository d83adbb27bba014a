# Every target sets itself up: a virtual environment is made once, and remade when the
# dependencies change. `make clean` removes it.
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
EXTRAS := dev,cell,log,bench
# Processes that share the tests.
JOBS ?= 2

# Networks as small as these gain nothing from a second thread.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint bench clean

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

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf $(VENV) out
