# make lab        set up and open JupyterLab on your copies of the notebooks
# make test       set up, then lint, tests, and every notebook against its outputs
# make notebooks  run the notebooks again and store their outputs (the only way they change)
# make gallery    write the site: notebooks, explorers, documents and the API reference as pages
# make bench      time what is timed against what
# make faults     kill everything long and fill its disk, at random moments; an hour
# make fuzz       throw damaged files at what reads files, ten minutes for each kind
# make lint       ruff and mypy
# make coverage   which lines no test reaches, with the lines that notebooks reach
# make mutants    does a test notice each small change of a module? hours; goes on where it stopped
# make oldest     the tests with the oldest versions that pyproject.toml allows
# make latest     the tests with the newest versions there are
#
# The first target sets up .venv; later ones install nothing until pyproject.toml or
# constraints.txt changes. `make PYTHON=python3.12 lab` chooses the Python; `make lab ARGS=...`
# gives `hirelab lab` its options, --no-browser or, as root in a container, --allow-root.

PYTHON ?= python3
VENV ?= .venv
STAMP := $(VENV)/.installed
RUN := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help setup lab test lint coverage mutants oldest latest notebooks gallery bench faults fuzz clean

help:
	@sed -n 's/^# \(make\)/\1/p' Makefile

# The stamp goes first and comes back last: what is interrupted half-way is set up again. An
# environment whose pip does not answer was left half-made and is rebuilt from nothing.
$(STAMP): pyproject.toml constraints.txt
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("hirelab needs Python 3.11 or newer and $(PYTHON) is " + sys.version.split()[0] + ": say make PYTHON=python3.11")'
	$(RUN) pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV), once; a few minutes (on Linux 7 GB, most of it torch's CUDA libraries)"
	$(RUN) pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP)

lab: $(STAMP)
	$(RUN) hirelab lab $(ARGS)

lint: $(STAMP)
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

# One pytest for everything, so that its last line counts everything; above it stand the slowest
# tests and how long each worker was busy. tests/conftest.py says what goes to which worker; what
# comes in large pieces stands first, so that small ones fill the end. torch keeps to one thread
# because two workers share two cores.
WORKERS := -n 2 --dist loadscope --no-loadscope-reorder --durations 15
TESTS := -m pytest notebooks tests/browser tests $(WORKERS) \
	--nbval --nbval-current-env --nbval-cell-timeout 120 \
	--nbval-sanitize-with notebooks/sanitize.cfg

test: lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python $(TESTS)

# The settings of pyproject.toml reach the notebooks' kernels only when the file is named.
coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python $(TESTS) --cov=hirelab --cov-config=pyproject.toml \
		--cov-report=term:skip-covered

# ARGS='--only ledger --sample 0': every mutant of one module.
mutants: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/mutants.py $(ARGS)

# Environments of their own. Outputs of notebooks depend on versions and are not compared here.
VERSIONS := -m pytest tests $(WORKERS)

oldest: $(STAMP)
	$(VENV)/bin/python .ci/oldest.py > .venv-oldest.txt
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet -c .venv-oldest.txt -e '.[dev]'
	OMP_NUM_THREADS=1 .venv-oldest/bin/python $(VERSIONS)

latest:
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install --quiet -e '.[dev]'
	OMP_NUM_THREADS=1 .venv-latest/bin/python $(VERSIONS)

notebooks: $(STAMP)
	$(RUN) hirelab notebooks
	$(RUN) hirelab gallery --thumbnails docs/thumbnails
	$(VENV)/bin/python -c "import hirelab as hl; hl.RearrangementPlayer().animation().save('docs/film.gif')"
	$(VENV)/bin/python -c "import hirelab as hl; hl.ablation_summary().plot().save('docs/claims.png')"

gallery: $(STAMP)
	$(RUN) hirelab gallery

bench: $(STAMP)
	$(RUN) hirelab bench

faults: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/faults.py $(ARGS)

# MINUTES=1 and SEED=7 change how long, and which inputs.
MINUTES ?= 10
SEED ?= 0
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/fuzz.py all --minutes $(MINUTES) --seed $(SEED)

clean:
	rm -rf $(VENV) .venv-oldest* .venv-latest gallery
