# `make test` and `make demo` set everything up by themselves: a virtual environment in .venv with the tested versions.

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
PHOTOS ?= examples/demo/photos

REFERENCE ?= .venv-reference
WORKERS ?= 2

.PHONY: help setup test test-reference format docs site demo rehearsal clean

help:
	@echo "make test                 ruff, mypy and pytest, two tests at a time (WORKERS=4: four)"
	@echo "make test-reference       the metrics against lpips, stlpips, pytorch-fid and torchmetrics, in $(REFERENCE)"
	@echo "make demo                 novel views of the example photos, in demo-output/"
	@echo "make demo PHOTOS=folder   the same of your own photos"
	@echo "make rehearsal            the paper's run of docs/reproduce.md, every line in small, in rehearsal-run/"
	@echo "make format               let ruff rewrite the code"
	@echo "make docs                 write docs/cli.md again"
	@echo "make site                 the documentation as pages, in site/; no dead link passes"
	@echo "make clean                remove the virtual environments, demo-output, rehearsal-run and site"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "fvgen needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,eval]"
	@touch $@

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# The packages come without their dependencies: torchvision's would replace a CPU build of torch (docs/evaluation.md).
$(REFERENCE)/.installed: tests/reference/requirements.txt constraints.txt
	@test -n "$(PYTHON)" || { echo "fvgen needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(REFERENCE)
	$(REFERENCE)/bin/python -m pip install --quiet -c constraints.txt torch numpy scipy pillow tqdm pytest pytest-timeout
	$(REFERENCE)/bin/python -m pip install --quiet --no-deps -r tests/reference/requirements.txt
	@touch $@

test-reference: $(REFERENCE)/.installed
	FVGEN_REQUIRE_REFERENCE=1 PYTHONPATH=src $(REFERENCE)/bin/python -m pytest tests/reference -s

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python scripts/write_cli_docs.py

# The variable silences an advertisement.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

demo: setup
	$(BIN)/python scripts/demo.py --photos "$(PHOTOS)" --output demo-output

rehearsal: setup
	$(BIN)/python scripts/rehearsal.py --work rehearsal-run

clean:
	rm -rf $(VENV) $(REFERENCE) demo-output rehearsal-run site
