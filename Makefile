# `make run` and `make test` work in a fresh clone: they set up .venv first, once.
#   PYTHON=python3.12      another interpreter (3.11 or newer)
#   PIP_ARGS="…"           extra arguments of pip, such as the index of PyTorch's CPU builds where pip would not choose one

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# the exact version first and by itself: a range would bring another build, with gigabytes of CUDA
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: run test test-all lint format docs clean

run: $(READY)  ## the main job: generate, train, judge, draw
	$(BIN)/solve --pde navier_stokes --model mgno

test: $(READY) lint  ## all checks that take seconds (two processes, one thread each)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-all: $(READY) lint  ## the slow checks too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## HTML pages in docs/_build/html
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e ".[docs]"
	$(BIN)/python -m sphinx -q -b html docs docs/_build/html

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip $(PIP_ARGS)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) "torch==$(TORCH)"
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
