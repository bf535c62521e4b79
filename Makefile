# Each target makes what it needs: on a fresh machine nothing but `make demo` or `make test` is to be typed.
PYTHON ?= python3.11
BIN := .venv/bin
DIGITS := examples/digits
BENCH := PYTHONPATH=benchmarks:$(DIGITS) $(BIN)/python -W ignore benchmarks/run.py

.PHONY: demo test test-all test-cases test-gpu matrix half host-time bench bench-quick lint types clean

demo: .venv/installed
	$(BIN)/speech-export $(DIGITS)/checkpoint -o build/digits --overwrite
	$(BIN)/speech-transcribe build/digits $(sort $(wildcard $(DIGITS)/audio/*.wav $(DIGITS)/audio/*.flac)) --num-beams 4

test: .venv/installed
	$(BIN)/pytest -n 2 --dist worksteal

# Every row of docs/support.md too; the default run has about half of them.
test-all: .venv/installed
	$(BIN)/pytest -n 2 --dist worksteal -m ""

# Ten times the random cases of the default run, and others.
CASES ?= 2000
test-cases: .venv/installed
	$(BIN)/pytest -n 2 --dist worksteal tests/parity/test_any_setting.py --cases $(CASES)

# On a machine with an NVIDIA GPU; install what it is to test first, see docs/gpu.md.
test-gpu: .venv/installed
	$(BIN)/pytest tests/gpu -m gpu -rs

# Measures every family again and writes docs/support.md and the table of docs/half_precision.md; --help of the script
# says how to measure some rows only.
matrix: .venv/installed
	$(BIN)/python tests/family_tables.py

# The same of half precision, and of all engines, only.
half: .venv/installed
	$(BIN)/python tests/family_tables.py --only half

# What a decoding step costs outside the engine.
host-time: .venv/installed
	$(BIN)/python benchmarks/host_time.py

# Against the peers, on the reference shape and the bundled model: benchmarks/results. Under 40 minutes, 25 GB of disk.
bench: .venv/bench-installed
	$(BENCH)

# The bundled model only: build/bench/results. Under 5 minutes.
bench-quick: .venv/bench-installed
	$(BENCH) --quick

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

.venv/bench-installed: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@

clean:
	rm -rf .venv build
