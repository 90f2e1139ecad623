# make lab        set up and open JupyterLab on the first notebook
# make test       set up, then lint, tests, and every notebook against its outputs
# make notebooks  run the notebooks again and store their outputs (the only way they change)
# make gallery    write every notebook as a page that needs no Python
# make bench      time what is timed against what
#
# The first target sets up .venv; later ones install nothing until pyproject.toml or
# constraints.txt changes. `make PYTHON=python3.12 lab` chooses the Python; `make lab ARGS=...`
# gives `hirelab lab` its options, --no-browser or, as root in a container, --allow-root.

PYTHON ?= python3
VENV ?= .venv
STAMP := $(VENV)/.installed
RUN := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help setup lab test lint notebooks gallery bench clean

help:
	@sed -n 's/^# \(make\)/\1/p' Makefile

# The stamp goes first and comes back last: what is interrupted half-way is set up again. An
# environment whose pip does not answer was left half-made and is rebuilt from nothing.
$(STAMP): pyproject.toml constraints.txt
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("hirelab needs Python 3.11 or newer and $(PYTHON) is " + sys.version.split()[0] + ": say make PYTHON=python3.11")'
	$(RUN) pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV), once; a few minutes (on Linux 6 GB, most of it torch's CUDA libraries)"
	$(RUN) pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP)

lab: $(STAMP)
	$(RUN) hirelab lab $(ARGS)

lint: $(STAMP)
	$(RUN) ruff check
	$(RUN) ruff format --check

# One pytest for everything, so that its last line counts everything. A file stays with one worker
# (a notebook is one kernel), and torch keeps to one thread because two workers share two cores.
test: lint
	OMP_NUM_THREADS=1 $(RUN) pytest tests notebooks -n 2 --dist loadfile --durations 10 \
		--nbval --nbval-current-env --nbval-cell-timeout 120 \
		--nbval-sanitize-with notebooks/sanitize.cfg

notebooks: $(STAMP)
	$(RUN) hirelab notebooks
	$(RUN) hirelab gallery --thumbnails docs/thumbnails
	$(VENV)/bin/python -c "import hirelab as hl; hl.RearrangementPlayer().animation().save('docs/film.gif')"

gallery: $(STAMP)
	$(RUN) hirelab gallery

bench: $(STAMP)
	$(RUN) hirelab bench

clean:
	rm -rf $(VENV) gallery
