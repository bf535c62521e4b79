# Each target installs what it needs: on a fresh machine nothing but `make demo` or `make test` is to be typed.
# PYTHON=python3.12 chooses the interpreter; otherwise it is the newest of 3.11 to 3.14 on PATH.
BIN := .venv/bin
DIGITS := examples/digits
BENCH := PYTHONPATH=benchmarks:$(DIGITS) $(BIN)/python -W ignore benchmarks/run.py
MKDOCS := NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs
export PYTHON
unexport VENV  # of the user's shell
.NOTPARALLEL:  # all targets share .venv

.PHONY: demo test test-all test-cases test-gpu gpu-bundles test-arm64 test-versions matrix half convolutions host-time bench bench-quick bench-whisper bench-gpu lint types docs docs-serve lock lock-check clean

demo: .venv/installed
	$(BIN)/speech-export $(DIGITS)/checkpoint -o build/digits --overwrite
	$(BIN)/speech-transcribe build/digits $(DIGITS)/audio/[0-9]* --num-beams 4
	@echo
	@echo "The graphs agree with PyTorch, as measured above, and each line is the text of one of twelve clips."
	@echo "Now with a checkpoint of your own, a directory or an id of the Hub:"
	@echo "  $(BIN)/speech-export MODEL -o build/mine"
	@echo "  $(BIN)/speech-transcribe build/mine RECORDING.wav"

test: .venv/installed-dev
	$(BIN)/pytest -n 2 --dist worksteal

# Every row of docs/support.md too; the default run has about half of them.
test-all: .venv/installed-dev
	$(BIN)/pytest -n 2 --dist worksteal -m ""

# Ten times the random cases of the default run, and others.
CASES ?= 2000
test-cases: .venv/installed-dev
	$(BIN)/pytest -n 2 --dist worksteal tests/parity/test_any_setting.py --cases $(CASES)

# On a machine with an NVIDIA GPU; install what it is to test first, see docs/gpu.md. GPU_TESTS="--device cpu" shows
# without one that the tests themselves work.
test-gpu: .venv/installed-dev
	$(BIN)/pytest tests/gpu -m "gpu and not alone" -rs -n 4 $(GPU_TESTS)
	$(BIN)/pytest tests/gpu -m "gpu and alone" -rs $(GPU_TESTS)

# Bundles for those tests and for bench-gpu, in build/gpu-bundles: export them on a machine without a GPU, and copy the
# folder there.
gpu-bundles: .venv/installed-dev
	PYTHONPATH=tests/helpers:benchmarks $(BIN)/python tools/gpu_bundles.py

# A core of the tests with the lowest versions that pyproject.toml allows, some between, and the newest: docs/install.md.
# 20 minutes and 7 GB each; VERSIONS=lowest for one of them.
test-versions: build/lock/installed
	PATH="$(CURDIR)/build/lock/bin:$$PATH" python tools/versions.py $(VERSIONS)

# The runtime on arm64, with bundles exported here: ROOT is the root of an arm64 Debian, see the script.
test-arm64: .venv/installed-dev
	$(BIN)/python tools/on_arm64.py $(ROOT)

# Measures every family again and writes docs/support.md and the table of docs/half_precision.md; --help of the script
# says how to measure some rows only.
matrix: .venv/installed-dev
	PYTHONPATH=tests/helpers $(BIN)/python tools/family_tables.py

# The same of half precision, and of all engines, only.
half: .venv/installed-dev
	PYTHONPATH=tests/helpers $(BIN)/python tools/family_tables.py --only half

# The convolutions of every encoder family at its real width, in docs/half_precision.md.
convolutions: .venv/installed-dev
	$(BIN)/python tools/convolutions.py

# What a decoding step costs outside the engine.
host-time: .venv/installed-dev
	$(BIN)/python benchmarks/host_time.py

# Against the peers, on the reference shape and the bundled model: benchmarks/results. Under 40 minutes, 25 GB of disk.
bench: .venv/installed-bench
	$(BENCH)

# The bundled model only: build/bench/results. Under 5 minutes.
bench-quick: .venv/installed-bench
	$(BENCH) --quick

# Whisper tiny.en beside transformers and faster-whisper, with the same weights: benchmarks/results/whisper. Under 20
# minutes; WHISPER=--help lists its options.
bench-whisper: .venv/installed-bench
	PYTHONPATH=benchmarks:$(DIGITS) $(BIN)/python -W ignore benchmarks/run_whisper.py $(WHISPER)

# On a machine with an NVIDIA GPU, beside transformers: benchmarks/results/gpu. GPU=--help lists its options.
bench-gpu: .venv/installed-dev
	PYTHONPATH=benchmarks:tests/helpers $(BIN)/python -W ignore benchmarks/run_gpu.py $(GPU)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy

# The docs site, build/site; a warning is an error. It needs neither torch nor .venv.
docs: build/docs/installed
	$(MKDOCS) build --strict --quiet
	@echo "The docs are in build/site/index.html"

# The same at http://127.0.0.1:8000, rebuilt whenever a page changes.
docs-serve: build/docs/installed
	$(MKDOCS) serve

# The tested set, constraints.txt: written by uv out of pyproject.toml, LOCK=--upgrade with the newest of everything.
lock: build/lock/installed
	PATH="build/lock/bin:$$PATH" python tools/lock.py $(LOCK)

# Is it current, and does every extra resolve on every platform and Python, against the public registry alone?
lock-check: build/lock/installed
	PATH="build/lock/bin:$$PATH" python tools/lock.py --check

.venv/installed: pyproject.toml constraints.txt
	tools/install.sh export,cpu,audio
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt
	tools/install.sh dev
	touch .venv/installed $@

.venv/installed-bench: .venv/installed-dev
	tools/install.sh bench
	touch $@

build/docs/installed: pyproject.toml constraints.txt
	VENV=build/docs tools/install.sh docs
	touch $@

build/lock/installed: pyproject.toml
	VENV=build/lock tools/install.sh lock
	touch $@

clean:
	rm -rf .venv build
