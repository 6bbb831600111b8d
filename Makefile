# make demo: train a ViLT, distil a faster PuMer-ViLT from it, and train a scorer for the frozen ViLT, on real digits.
# make test: run the tests; make test-unit: only the quick ones.
# Each sets up what it needs in $(VENV). On Linux without a GPU,
# `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo` saves the CUDA packages (several GB).

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
CONSTRAINTS ?= constraints.txt
PIP_INSTALL = $(BIN)/python -m pip --disable-pip-version-check install --quiet
PIP = $(PIP_INSTALL) --constraint $(CONSTRAINTS)
PYTHONS ?= 3.10 3.11 3.12 3.13 3.14

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-unit test-slow test-lowest test-newest pins notebooks mutants quality style docs docs-serve

help:
	@echo "make demo        train teacher, student and scorer on digit scenes (minutes on two cores);"
	@echo "                 ARGS=--resume continues an interrupted run,"
	@echo "                 ARGS='--output_dir outputs/again' begins another one"
	@echo "make test        run the tests"
	@echo "make test-unit   run the quick ones of them, at each save (at most 3 minutes on two cores)"
	@echo "make test-slow   run the slow tests too"
	@echo "make test-lowest run the tests on the lowest versions that are declared (Python 3.10 or 3.11), in .venv-lowest"
	@echo "make test-newest run the tests on the newest versions there are, in .venv-newest"
	@echo "make pins        see whether the versions in constraints.txt can be installed on each Python that is here"
	@echo "make notebooks   run the notebooks in examples/ and store them with their outputs (minutes)"
	@echo "make mutants     change the core on purpose, a small thing at a time, and list what no unit test notices (hours)"
	@echo "make docs        build the documentation site in site/"
	@echo "make docs-serve  show the documentation site while you write, at http://127.0.0.1:8000"
	@echo "make quality     check style and types"
	@echo "make style       format the code"
	@echo "make install     only set up $(VENV)"

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

# torch first: what comes after is content with the build that is there
$(VENV)/.installed: setup.cfg $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable ".[digits]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable ".[digits,dev]"
	@touch $@

# Without a launcher, whose traceback would follow Ctrl-C and any error; so on one GPU, if there are several.
demo: install
	@PUMER_HF_STARTED_BY="make $@" CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES-0} \
	    $(BIN)/python recipes/train_vqa.py $(ARGS)
	@folder=outputs/digit-scenes; set -- $(ARGS); \
	    while [ $$# -gt 0 ]; do \
	        case "$$1" in --output?dir) folder=$$2;; --output?dir=*) folder=$${1#*=};; esac; shift; \
	    done; \
	    [ -f $$folder-lookahead/results.json ] || CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES-0} \
	    $(BIN)/python recipes/train_vqa.py recipes/vilt/digit_scenes/lookahead.yaml --teacher $$folder/teacher \
	    --output_dir $$folder-lookahead $$([ ! -d $$folder-lookahead ] || echo --resume true)

test: install-dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-unit: install-dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m unit

test-slow: install-dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "slow or not slow"

test-lowest:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] > (3, 11) and \
	    "the lowest versions have no wheels for this Python: make test-lowest PYTHON=python3.10")'
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

# Anew each time, since what is newest changes.
test-newest: VENV = .venv-newest
test-newest:
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) --upgrade --upgrade-strategy eager --editable ".[digits,dev]"
	$(PIP_INSTALL) --upgrade pillow  # newer than Gradio asks for, as whoever does without the page gets it
	$(BIN)/python -m pip list
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

# Resolves, and installs nothing.
pins:
	@for version in $(PYTHONS); do \
	    if ! python$$version -c "" 2>/dev/null; then echo "python$$version is not here"; continue; fi; \
	    folder=$$(mktemp -d); python$$version -m venv $$folder; \
	    $$folder/bin/python -m pip --disable-pip-version-check install --quiet --dry-run \
	        --constraint $(CONSTRAINTS) --editable ".[digits,dev]" \
	        && echo "python$$version: can be installed" || failed="$$failed $$version"; \
	    rm -r $$folder; \
	done; [ -z "$$failed" ] || { echo "cannot be installed on:$$failed"; exit 1; }

notebooks: install-dev
	$(PIP) --editable ".[digits,dev,notebooks]"
	$(BIN)/python benchmarks/notebooks.py

# Stop it when you like: the same command goes on.
mutants: install-dev
	$(PIP) --editable ".[digits,dev,mutants]"
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

# The pages are made of the package and of the results, so both must be importable.
MKDOCS = NO_MKDOCS_2_WARNING=1 PYTHONPATH=src:benchmarks:. $(BIN)/python -m mkdocs

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) --editable ".[digits,docs]"
	@touch $@

docs: $(VENV)/.installed-docs
	$(MKDOCS) build --strict

docs-serve: $(VENV)/.installed-docs
	$(MKDOCS) serve --watch src --watch website

quality: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
