# make demo    the story on a real control plane; FENCE=none or FENCE=rv tells it without the fence; KUBECONFIG=FILE on a cluster;
#              PICTURE=docs/demo.svg draws it
# make test    all checks and tests, but for
# make e2e     the operator on real nodes, by kubectl alone; needs root
# make chaos   faults on real nodes, at random, for MINUTES; SEED=… repeats a run; needs root
# make faults  the fault matrix: one cause of a lost leader after the other, where it bites; FAULT="paused 429" for some
# make matrix  the tests that a version of Kubernetes can break, on each; KUBERNETES="1.34 1.37" for some
# make soak    whether replicas grow under load, for MINUTES=120; SEED=… repeats a run
# make model   every state of the core within bounds, beside a small API server; 10 minutes on two cores
# make mutants the code, broken on purpose in one place after the other: which test notices?
# make fuzz    whatever may come in, at random, for MINUTES; what failed is kept in build/fuzz
# make bench   all benchmarks, in MINUTES=40 at most; BENCH="service takeover" for some; make bench-quick in 5
# make tokens  one term that outlives its tokens, for MINUTES=25
# make image   the operator's image, as a docker archive; BASE=… or DEBIAN=1; TWICE=1 builds it again and compares
# make package the source distribution and the wheel, in dist, tried in an environment of their own
# make docs    the site of docs/, in build/site
# Each sets up what it needs: a virtual environment, and the control plane's programs, built from Go modules
# once and kept in the user's cache.

PYTHON ?= python3
FENCE ?= full
MINUTES ?= 5
# Most of a test's time is waiting for leases, so several run at once, each with its own cluster. Those that a busy
# machine can fail run one after the other, after the rest.
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test tests e2e chaos faults matrix soak model mutants fuzz bench bench-quick tokens image package chart dashboard picture kind actions lowest newest units other-units checks lint docs binaries clean help

help:
	@sed -n 's/^# //p' Makefile | head -17

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12") if sys.version_info < (3, 11) else 0'
	@echo "setting up $(VENV) with the packages of constraints.txt: about a minute, once" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

binaries: $(STAMP)
	@$(BIN)/python -m devcluster build >/dev/null

# A KUBECONFIG of the environment is not used: nobody should find the demo in a cluster that they did not name.
demo: $(STAMP)
	@$(BIN)/python -m demo --fence $(FENCE) $(if $(filter command line,$(origin KUBECONFIG)),--kubeconfig $(KUBECONFIG)) $(if $(PICTURE),--picture $(PICTURE))

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry operator
	$(BIN)/deptry . --ignore DEP004  # all but what ships may use the extras

# The site, in build/site; a warning is an error. The variable silences the theme's advertisement of its successor.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The units of the library on every Python that it supports; CI requires all of them.
units: $(STAMP)
	@scripts/units $(UNITS_PYTHONS)

# On the Pythons on which `make test` does not run all tests.
other-units: $(STAMP)
	@BUT=$(BIN)/python scripts/units

# One step of lint, and Python of other-units, uses one core at most.
checks: $(STAMP)
	@$(MAKE) --no-print-directory -j3 --output-sync=target lint docs other-units

test: checks tests

tests: binaries
	@BIN=$(BIN) WORKERS=$(WORKERS) scripts/tests $(PYTEST_ARGS)

# With the oldest, or the newest, releases of the dependencies that pyproject.toml allows; KOPF=git+URL for another Kopf.
lowest newest:
	@PYTHON=$(PYTHON) KOPF="$(KOPF)" scripts/dependencies $@

# One cluster with two nodes for all of it, one test after the other.
e2e: $(STAMP)
	$(BIN)/python -m pytest tests/e2e $(PYTEST_ARGS)

# Not for CI: each run is another one. What it finds and one can name becomes a test.
chaos: $(STAMP)
	@$(BIN)/python -m benchmarks.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# The tests try the cheapest ones (tests/faults). FAULT has parts of names, those with spaces in quotes of their own.
faults: $(STAMP) binaries
	@$(BIN)/python -m faults $(FAULT)

# Ten minutes for each version, and as many to build its programs the first time. docs/compatibility.md gets what came out.
matrix: $(STAMP)
	@$(BIN)/python -m testbed.matrix $(KUBERNETES)

# Not for CI, since it says nothing before an hour.
soak: MINUTES = 120
soak: $(STAMP) binaries
	@$(BIN)/python -m faults.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# The tests explore smaller bounds (model/plans.py).
model: $(STAMP)
	@$(BIN)/python -m model

# Random ones of the core: `python -m mutants --random 200`, see docs/mutants.md. The tests try the cheapest.
mutants: $(STAMP)
	@$(BIN)/python -m mutants

# The tests try the same few examples each time (tests/fuzz).
fuzz: $(STAMP)
	@BIN=$(BIN) MINUTES=$(MINUTES) scripts/fuzz $(PYTEST_ARGS)

# What is kept in the repository is a run of all of them; a part of them only goes to build/bench.
bench: MINUTES = 40
bench: $(STAMP) binaries
	@$(BIN)/python -m benchmarks.collect --minutes $(MINUTES) $(if $(BENCH),,--output benchmarks/results) $(BENCH)

bench-quick: MINUTES = 5
bench-quick: $(STAMP) binaries
	@$(BIN)/python -m benchmarks.collect --minutes $(MINUTES) $(BENCH)

# Not for CI, since a token lives for ten minutes at least.
tokens: MINUTES = 25
tokens: $(STAMP)
	@$(BIN)/python -m benchmarks.tokens --minutes $(MINUTES)

image: $(STAMP)
	@$(BIN)/python -m image $(if $(DEBIAN),--debian) $(if $(BASE),--base $(BASE)) $(if $(TWICE),--twice) --output build/kopf-ha-ipam.tar

package:
	@PYTHON=$(PYTHON) scripts/package

# deploy/chart, from deploy/, crds/ and the library. A test says when it is due.
chart: $(STAMP)
	@$(BIN)/python -m chart

# The dashboard's JSON, from dashboard/rows.py. A test says when it is due.
dashboard: $(STAMP)
	@$(BIN)/python -m dashboard

# The dashboard as docs/observability.md shows it, from replicas that a Prometheus scrapes: seven minutes.
picture: $(STAMP) binaries
	@$(BIN)/python -m dashboard.picture

# .github: actionlint, which Go builds, and zizmor.
actions:
	@PYTHON=$(PYTHON) scripts/actions

# The operator on a kind cluster, by docker.
kind: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/kind

clean:
	rm -rf $(VENV) .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
