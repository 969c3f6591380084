# Everything a newcomer needs: `make demo`, `make test`. Each does its own set-up.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS_VENV ?= .venv-tools
TOOLS_STAMP := $(TOOLS_VENV)/.installed
LLAMA_VENV ?= .venv-llama
LLAMA_STAMP := $(LLAMA_VENV)/.installed
ENGINES_DIR ?= .engines
ENGINES_STAMP := $(ENGINES_DIR)/.installed
export PYTHONUNBUFFERED := 1

.PHONY: setup demo test test-tools test-engines mutants lint format bench clean

setup: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v >= (3, 11) else "make: Python 3.11 or newer is needed, found %d.%d; give PYTHON=/path/to/python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --editable .
	@rm -rf ad_scout.egg-info
	@touch $@

demo: setup
	$(BIN)/scout demo

test: setup lint
	$(BIN)/python -m pytest

# Against real programs: Chromium and LibreOffice, which .ci/run installs, and a Label Studio server in an
# environment of its own (0.8 GB; its pins clash with ours). llama.cpp's server is compiled, which takes minutes
# and a C++ compiler.
test-tools: setup $(TOOLS_STAMP) $(LLAMA_STAMP)
	SCOUT_LABEL_STUDIO=$(abspath $(TOOLS_VENV))/bin/label-studio SCOUT_LLAMA_CPP=$(abspath $(LLAMA_VENV))/bin/python \
		$(BIN)/python -m pytest tests/real_tools

$(TOOLS_STAMP): requirements-tools.txt
	$(PYTHON) -m venv $(TOOLS_VENV)
	$(TOOLS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-compile -r requirements-tools.txt
	@touch $@

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

clean:
	rm -rf $(VENV) $(TOOLS_VENV) $(LLAMA_VENV) $(ENGINES_DIR) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
