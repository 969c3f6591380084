# Everything a newcomer needs: `make demo`, `make test`. Each does its own set-up.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS_VENV ?= .venv-tools
TOOLS_STAMP := $(TOOLS_VENV)/.installed
LOCK_VENV ?= .venv-lock
LOCK_STAMP := $(LOCK_VENV)/.installed
LOCKS := requirements.txt requirements-dev.txt requirements-tools.txt
LLAMA_VENV ?= .venv-llama
LLAMA_STAMP := $(LLAMA_VENV)/.installed
ENGINES_DIR ?= .engines
ENGINES_STAMP := $(ENGINES_DIR)/.installed
export PYTHONUNBUFFERED := 1

.PHONY: setup demo test test-tools test-llama test-engines mutants lint format bench lock audit clean

setup: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v >= (3, 11) else "make: Python 3.11 or newer is needed, found %d.%d; give PYTHON=/path/to/python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --editable .
	@rm -rf ad_scout.egg-info
	@touch $@

demo: setup
	$(BIN)/scout demo

# TEST_JOBS processes, a file of tests each at a time.
TEST_JOBS ?= auto
test: setup lint
	$(BIN)/python -m pytest -n $(TEST_JOBS) --maxprocesses 4 --dist loadfile

# Against real programs: Chromium and LibreOffice, which .ci/run installs, and a Label Studio server in an
# environment of its own (0.8 GB; its pins clash with ours).
test-tools: setup $(TOOLS_STAMP)
	SCOUT_LABEL_STUDIO=$(abspath $(TOOLS_VENV))/bin/label-studio $(BIN)/python -m pytest tests/real_tools --ignore tests/real_tools/llama_cpp

$(TOOLS_STAMP): requirements-tools.txt
	$(PYTHON) -m venv $(TOOLS_VENV)
	$(TOOLS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-compile --require-hashes -r requirements-tools.txt
	@touch $@

# Against llama.cpp's own server: it is compiled, which takes ten minutes and a C++ compiler, so CI leaves it out.
test-llama: setup $(LLAMA_STAMP)
	SCOUT_LLAMA_CPP=$(abspath $(LLAMA_VENV))/bin/python $(BIN)/python -m pytest tests/real_tools/llama_cpp

$(LLAMA_STAMP): requirements-llama.txt
	$(PYTHON) -m venv $(LLAMA_VENV)
	$(LLAMA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir -r requirements-llama.txt
	@touch $@

# On engines: the Python job service, Prism, Spark, and a Flink cluster of three processes. Java 17 and Maven are
# needed; the rest (0.7 GB, Prism is built) goes into $(ENGINES_DIR). ENGINES=skip: none.
ifeq ($(ENGINES),skip)
test-engines:
	@echo "make: ENGINES=skip: nothing was tested on Flink, Spark, Prism and the Python job service"
else
test-engines: setup $(ENGINES_STAMP)
	SCOUT_ENGINES=$(abspath $(ENGINES_DIR)) $(BIN)/python -m pytest tests/engines/runners

$(ENGINES_STAMP): tests/engines/runners/install.py $(wildcard tests/engines/runners/jars/*/pom.xml)
	$(PYTHON) tests/engines/runners/install.py $(ENGINES_DIR)
	@touch $@
endif

# Breaks what the project promises, one thing at a time, in a copy of the tree: does a test notice? ONLY: one of them.
mutants: setup
	$(BIN)/python -m tests.mutants.run $(if $(ONLY),--only $(ONLY))

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# BENCH_DATA: a labelled corpus, JSON lines with text and label (clickbait or benign), may be gzip.
bench: setup
	SCOUT_BENCH_DATA=$(BENCH_DATA) $(BIN)/python -m benchmarks

# Writes the hashes of all that is pinned anew: pin a version in one of the files, and run it.
lock: $(LOCK_STAMP)
	@set -e; for file in $(LOCKS); do \
		{ grep '^#' $$file; grep -o '^[A-Za-z0-9][^ ;]*==[^ ;]*' $$file | $(LOCK_VENV)/bin/uv pip compile --quiet --no-deps \
			--generate-hashes --no-annotate --no-header --python-version 3.11 --python-platform x86_64-manylinux_2_28 -; } \
			> $$file.new; mv $$file.new $$file; done

# Known holes of what is pinned, by the database of PyPI: where that cannot be reached it says so and fails.
audit: $(LOCK_STAMP)
	@set -e; for file in $(LOCKS); do $(LOCK_VENV)/bin/pip-audit --strict --disable-pip --require-hashes --requirement $$file; done

$(LOCK_STAMP):
	$(PYTHON) -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir uv==0.13.9 pip-audit==2.10.1
	@touch $@

clean:
	rm -rf $(VENV) $(TOOLS_VENV) $(LOCK_VENV) $(LLAMA_VENV) $(ENGINES_DIR) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
