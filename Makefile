# SPDX-License-Identifier: MIT
# `make run` demonstrates the program, `make test` tests it. Each sets up the checkout first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARALLEL := --numprocesses logical --dist loadfile

.PHONY: run test vanish coverage mutants fuzz fresh matrix matrix-part guest pressure properties compiled bench bench-processors bench-text bench-memory fleet-bench fleet-test long long-guests compare-json check docs pictures man setup fixtures kernel-5.10-noinline clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml tests/setup
	PYTHON=$(PYTHON) VENV=$(VENV) sh tests/setup
	touch $(VENV)/.runs $@

# The same without what only the tests need.
$(VENV)/.runs: pyproject.toml tests/setup
	PYTHON=$(PYTHON) VENV=$(VENV) sh tests/setup run
	touch $@

# On this machine if it can be traced, else in a guest, else with a recorded trace; it prints which and why.
run: $(VENV)/.runs
	$(BIN)/python -m kalloctrace.lab.demo

# KALLOCTRACE_REQUIRE_LIVE=1 makes a missing guest a failure.
# Guests and the browser take a processor each, beside the guest of the longest tests; other tests run on all, a file on one.
test: setup check coverage
	$(BIN)/python -m pytest $(PARALLEL) tests/replay tests/logs
	$(BIN)/python -m pytest $(PARALLEL) tests/cli
	$(BIN)/python -m pytest tests/live tests/browser

# The unit tests; each of these rooms has 95 % of its branches covered by them.
coverage: setup
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report= tests/unit
	failed=; for room in flags kernel model verify; do \
	    $(BIN)/coverage report --include "kalloctrace/$$room/*" --fail-under 95 || failed=yes; \
	done; test -z "$$failed"

# Which small changes of a module no test notices: MODULE="kalloctrace/model/gfp.py kalloctrace/verify", JOBS=1.
mutants: setup
	$(BIN)/python -m tests.mutants.run --jobs $(or $(JOBS),2) $(if $(SAMPLE),--sample $(SAMPLE)) $(MODULE)

# Attacks every reader of foreign bytes; SURFACE="log batch", SECONDS=600 for all together, or RUNS=1000000 each.
fuzz: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group fuzz
	$(BIN)/python -m tests.fuzz.run $(if $(SECONDS),--seconds $(SECONDS)) $(if $(RUNS),--runs $(RUNS)) $(SURFACE)

# `make run` and `make test` in fresh Debian roots, as root; hours. FRESH="13", STEP=run or test, ROOTS=build/fresh.
fresh: setup
	$(BIN)/python -m tests.fresh.run $(if $(ROOTS),--folder $(ROOTS)) $(if $(STEP),--step $(STEP)) $(if $(FRESH),--release $(FRESH))

# Every kernel on every machine; it writes the table in docs/kernels.md. KERNELS="6.17 6.12-rt" selects others.
matrix: setup
	$(BIN)/python -m tests.matrix.run $(KERNELS)

# Every kernel on some machines, and every machine with some kernels; nothing is written.
matrix-part: setup
	$(BIN)/python -m tests.matrix.run --dry-run --one-in 6 --requests 300000

# All tests that trace the running kernel, in a guest; an hour. KERNEL="7.3".
guest: setup
	$(BIN)/python -m tests.live.whole $(or $(KERNEL),5.10)

# Properties of kernel logs that are drawn at random, EXAMPLES of each; thousands take longer than a test may.
properties: setup
	KALLOCTRACE_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest --timeout=0 tests/properties

# The slow path of four kernels in guests with too little memory; `make test` replays fixtures of it.
pressure: setup
	$(BIN)/python -m pytest -s tests/pressure

# Executes functions of nine kernel images in an emulator, without booting; it writes the tables in docs/slow-path.md.
compiled: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group compiled
	$(BIN)/python tests/compiled/run.py $(or $(KERNELS),--docs)

# The overhead of tracing, compared with perf, trace-cmd, bpftrace and bcc; it writes docs/performance.md and README.
# KERNELS="6.1 7.2" measures these again and keeps all other figures.
bench: setup
	sh tests/bench/setup
	$(BIN)/python -m tests.bench.run $(KERNELS)

# Correctness and memory with 1 to 64 emulated processors; it writes docs/performance.md. PROCESSORS="64" selects.
bench-processors: setup
	$(BIN)/python -m tests.bench.processors $(PROCESSORS)

# How long reading logs and event text takes, from 10 KB to 100 MB: time grows with the size, or a reader is quadratic.
bench-text: setup
	$(BIN)/python -m tests.bench.text $(if $(LARGEST),--largest $(LARGEST))

# Memory and time of the commands that read a trace: long, of distinct allocations, of slow calls. SHARE=0.1 is quick.
bench-memory: setup
	$(BIN)/python -m tests.bench.memory $(if $(SHARE),--share $(SHARE))

# Time and size of a fleet's questions, what its searches find, and false alarms. ROWS="300000 10000000", SEEDS=20,
# ENGINE=duckdb; DOCS=1 writes it into docs/fleet.md.
fleet-bench: setup
	$(BIN)/python -m tests.bench.fleet $(foreach rows,$(ROWS),--rows $(rows)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(ENGINE),--engine $(ENGINE)) $(if $(DOCS),--docs)

# A fleet is asked by a Spark cluster on loopback, of which a worker is killed in mid-query.
fleet-test: setup
	KALLOCTRACE_REQUIRE_LIVE=1 $(BIN)/python -m pytest tests/cluster

# The forks of a long recording, replayed without a kernel: its memory must not grow. FORKS= sets their number.
long: setup
	$(BIN)/python -m tests.bench.long --mode aggregate $(if $(FORKS),--forks $(FORKS))
	$(BIN)/python -m tests.bench.long --mode stream $(if $(FORKS),--forks $(FORKS))

# Real forks in guests, in both modes, at most 15 minutes for each: KERNELS="5.10 6.12", FORKS=300000, MODE=stream.
long-guests: setup
	$(BIN)/python -m tests.bench.long_guests $(if $(FORKS),--forks $(FORKS)) $(if $(MODE),--mode $(MODE)) $(or $(KERNELS),5.10 6.12)

# The --json output on all fixtures against that of an earlier commit: only prose and listed corrections may differ.
compare-json: setup
	$(BIN)/python tests/compat/compare_json.py $(BASE)

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

# The documentation site, in build/docs; a warning is an error.
docs: setup
	for language in en zh-cn; do \
	    KALLOCTRACE_DOCS=$$language $(BIN)/sphinx-build -q -W --keep-going -n -c docs \
	        -d build/doctrees/$$language docs/$$language build/docs/$$language || exit 1; \
	done

# The README's pictures, drawn from fixtures.
pictures: setup
	$(BIN)/python -m tests.pictures

man: setup
	$(BIN)/kalloctrace man -f -o build/man

# The terminal of `live` disappears in each way, TIMES times; the tests do it once.
vanish: setup
	$(BIN)/python -m tests.vanish.run --times $(or $(TIMES),100)

# Builds a 5.10 kernel in which prepare_alloc_pages is not inlined, so that it can be probed.
kernel-5.10-noinline: setup
	PYTHON=$(BIN)/python tests/kernels/build-noinline-5.10

fixtures: setup
	$(BIN)/python -m fixtures.record

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
