# `make demo` and `make test` are all that a fresh clone needs. Everything is installed in .venv.
PYTHON ?= python3
PY := .venv/bin/python
TORCHRUN := .venv/bin/torchrun
# Real pictures for tests, where they lie beside the project.
export SIAMSTREAM_TEST_DATA ?= $(realpath ../shared/data)

.PHONY: help install demo test test-services quick lint types bench bench-report clean

help:
	@echo "make install   .venv with everything (6.5 GB: CUDA builds of torch and DALI)"
	@echo "make demo      demo data -> shards -> pairs -> training -> benchmark table"
	@echo "make test      lint, types, import rules, all tests that need no GPU"
	@echo "make test-services   tests that need nginx, a browser or minutes; names what is absent"
	@echo "make quick     the tests that take a minute"
	@echo "make bench     the loader benchmark of the README, on data that it makes"

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --editable '.[dev]'
	touch $@

demo: install
	sh docs/demo.sh

test: install lint types
	$(PY) -m pytest -m "not gpu and not services" -n 2

# A test whose service is absent is skipped, and the summary names the service and how to get it.
test-services: install
	$(PY) -m pytest -m services

quick: install
	$(PY) -m pytest -m "not gpu and not slow and not services"

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m codespell_lib
	.venv/bin/lint-imports --no-logo
	$(PY) -m benchmarks report --check
	$(PY) train.py --describe-config | diff docs/CONFIG.md -

types: install
	$(PY) -m mypy

bench: install
	$(PY) -m benchmarks loaders --json benchmarks/results/loaders-cpu.json
	$(PY) -m benchmarks report

clean:
	rm -rf .venv build dist *.egg-info
