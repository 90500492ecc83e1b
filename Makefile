# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo lint test check clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit("vidlet needs Python 3.10 or newer; $(PYTHON) is %d.%d: make install PYTHON=python3.12" % (v[0], v[1]))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/vidlet demo --out runs/demo

test: install
	$(BIN)/python -m pytest -n 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

clean:
	rm -rf $(VENV) build *.egg-info

# Damaged and hostile inputs for every parser, for so many minutes; what it finds is kept in tests/fuzz/found.
MINUTES ?= 5
SEED ?= 0
fuzz: install
	$(BIN)/python tests/fuzz/run.py --minutes $(MINUTES) --seed $(SEED)
