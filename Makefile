# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo lint docs test check dist clean fuzz results results-check

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit("vidlet needs Python 3.10 or newer; $(PYTHON) is %d.%d: make install PYTHON=python3.12" % (v[0], v[1]))'
	$(PYTHON) -m venv $(VENV)
	@echo 'torch first: the largest part, half a gigabyte or more to load; a minute or two'
	$(BIN)/python -m pip install --constraint constraints.txt torch
	@echo 'now vidlet and the rest; a minute or two'
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@
	@echo 'vidlet is in $(VENV). Next: make demo, or: source $(BIN)/activate, then vidlet --help'

demo: install
	$(BIN)/vidlet demo --out runs/demo

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint results-check docs test

# The tables of the pages say what benchmarks/figures/ says; what was measured by other code than today's is listed.
results-check: install
	$(BIN)/python benchmarks/results.py --check

# Measure what today's code has not, what ran longest ago first, and fill the pages. QUICK=1: what fits into an hour.
# ONLY="suite decode": these benchmarks. What was done stays done when it is interrupted.
results: install
	$(BIN)/python benchmarks/results.py $(ONLY) $(if $(QUICK),--quick)

# The site of the documents, with every link checked, in build/site; no network. `mkdocs serve` shows it while you write.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/site

# What a release uploads, in dist/: the source and the wheel, checked. `.ci/wheel PYTHON` then tests the wheel bare.
dist: install
	$(BIN)/python -m pip install --quiet build twine check-manifest
	$(BIN)/check-manifest
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist src/*.egg-info

# Damaged and hostile inputs for every parser, for so many minutes; what it finds is kept in tests/fuzz/found.
MINUTES ?= 5
SEED ?= 0
fuzz: install
	$(BIN)/python tests/fuzz/run.py --minutes $(MINUTES) --seed $(SEED)
