# `make demo` and `make test` are all that a fresh clone needs. Everything is installed in .venv.
PYTHON ?= python3
PY := .venv/bin/python
TORCHRUN := .venv/bin/torchrun
# Real pictures for tests, where they lie beside the project.
export SIAMSTREAM_TEST_DATA ?= $(realpath ../shared/data)

.PHONY: help install demo test test-services quick lint types bench bench-loaders bench-quick clean

help:
	@echo "make install   .venv with everything (6.5 GB: CUDA builds of torch and DALI)"
	@echo "make demo      demo data -> shards -> pairs -> training -> benchmark table"
	@echo "make test      lint, types, import rules, all tests that need no GPU"
	@echo "make test-services   tests that need nginx, a browser or minutes; names what is absent"
	@echo "make quick     the tests that take a minute"
	@echo "make bench     every result of the report and the report itself; hours of a quiet machine"
	@echo "make bench-loaders   the two comparisons of loaders, and the report"
	@echo "make bench-quick   ratios of speed beside the committed ones; warns of what got slower"

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

# Every result in the order of the report, on data that are made here (real pictures for bars and
# costs where SIAMSTREAM_TEST_DATA names them). About two hours of a quiet machine of two cores and
# 11 GB of disk; `took_s` in each result says how long it took. A GPU: benchmarks gpu --out DIR.
bench: install
	$(PY) -m benchmarks loaders --work plain --pairs 1024 --repeats 5 --json benchmarks/results/loaders-plain-cpu.json
	$(PY) -m benchmarks loaders --pairs 1024 --repeats 5 --json benchmarks/results/loaders-cpu.json
	$(PY) -m benchmarks sweep --json benchmarks/results/sweep-cpu.json
	$(PY) -m benchmarks scale --json benchmarks/results/scale.json
	$(PY) -m benchmarks bars --json benchmarks/results/bars-cpu.json
	$(PY) -m benchmarks memory --json benchmarks/results/memory-cpu.json
	$(PY) -m benchmarks remote --repeats 5 --json benchmarks/results/remote.json
	$(PY) -m benchmarks costs --json benchmarks/results/costs-cpu.json
	$(PY) -m benchmarks sequential --json benchmarks/results/sequential.json
	$(PY) -m benchmarks train --json benchmarks/results/train-cpu.json
	$(PY) -m benchmarks step --json benchmarks/results/step-cpu.json
	$(PY) -m benchmarks learn --json benchmarks/results/learn-cpu.json
	$(PY) -m benchmarks limits --json benchmarks/results/limits-cpu.json
	$(PY) -m benchmarks pack --json benchmarks/results/pack-cpu.json
	$(PY) -m benchmarks quick --no-compare --json benchmarks/results/quick-cpu.json
	$(PY) -m benchmarks report

bench-loaders: install
	$(PY) -m benchmarks loaders --work plain --pairs 1024 --repeats 5 --json benchmarks/results/loaders-plain-cpu.json
	$(PY) -m benchmarks loaders --pairs 1024 --repeats 5 --json benchmarks/results/loaders-cpu.json
	$(PY) -m benchmarks report

# Three minutes of a quiet machine. QUICK=--strict fails where a ratio fell.
bench-quick: install
	$(PY) -m benchmarks quick $(QUICK)

clean:
	rm -rf .venv build dist *.egg-info
