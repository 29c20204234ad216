# make help. A paper is a folder with a suffix, *_torch or *_tf; its target is the name without it.
SHELL := bash
PYTHON ?= python3
EXTRA ?= cpu
JOBS ?= 2
TORCH := $(patsubst %_torch/train.py,%,$(wildcard *_torch/train.py))
TF := $(patsubst %_tf/train.py,%,$(wildcard *_tf/train.py))
SUITES := $(wildcard tests/*_torch tests/*_tf)
# The number of clusters, K, as the paper's config calls it.
K_KEY_dti := model.n_prototypes
K_KEY_dfc := model.n_labels

.PHONY: help setup test lint bench report data $(TORCH) $(TF)
.NOTPARALLEL:

ifeq ($(filter $(EXTRA),cpu cuda),)
$(error EXTRA is $(EXTRA): cpu or cuda was expected)
endif

define HELP
One command a paper: sets up (once), trains, predicts, scores, writes the report, prints the run folder.

  make PAPER             PAPER is one of: $(TORCH) $(TF)
  make test              all tests, one process a suite, JOBS=2 suites at once
  make bench             our training step against the plain one, in turn: the ratios
  make report            index.html over all runs
  make data DATASET=x    download a data set (data/README.md names them)
  make lint              format and rules (ruff)
  make setup             install all papers' packages into .venv

  CONFIG=mnist.yml       a file of the paper's configs/, or a path; without it a small data set that comes with the code
  IMAGES=photos K=10     your own folder of images, in 10 clusters
  TAG=try1               a name for the run
  SET="--training.lr 3e-4 --training.seed 3"    any key of the config
  CUDA=0                 which GPU; EXTRA=cuda at set-up for GPU builds; PYTHON=python3.12 the interpreter of .venv

  make dti
  make dti IMAGES="my photos" K=10 TAG=holiday
  make dti CUDA=0 CONFIG=mnist.yml TAG=try1 SET="--training.lr 3e-4"
  make dfc IMAGES=photo.jpg
  make deepcluster IMAGES=photos K=10
  make unsup_seg IMAGES=photos CONFIG=cpu.yml
endef
export HELP

help:
	@echo "$$HELP"

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "$(PYTHON) is absent or older than 3.10: name another one, as in make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	    echo "$(PYTHON) cannot make a .venv: install its venv package (Debian and Ubuntu: python3-venv)" >&2; exit 2; }
	@$(PYTHON) -m venv .venv

# One stamp for each set of extras: pip runs again when a version changes, else setting up is instant.
.venv/installed-%: pyproject.toml constraints.txt | .venv/bin/python
	@case $* in dev) cost="200 MB, a minute or two";; tf-*) cost="TensorFlow, 1 GB, a few minutes";; *) cost="PyTorch alone is 3 GB, 4 to 15 minutes";; esac; \
	    echo "Setting up .venv with [$*], once ($$cost) ..." >&2
	@.venv/bin/python -m pip install -c constraints.txt -e '.[$*]' >&2
	@touch $@

setup: .venv/installed-$(EXTRA),dev
	@touch .venv/installed-dev .venv/installed-torch-$(EXTRA) .venv/installed-tf-$(EXTRA)

$(TORCH): .venv/installed-torch-$(EXTRA)
$(TF): .venv/installed-tf-$(EXTRA)
# IMAGES and K come through the environment, so that any name is safe; SET is shell text and may quote.
$(TORCH) $(TF):
	@set -- $(SET); \
	if [ -n "$$K" ]; then set -- --$(or $(K_KEY_$@),model.n_clusters) "$$K" "$$@"; fi; \
	if [ -n "$$IMAGES" ]; then set -- --dataset.name folder --dataset.path "$$IMAGES" "$$@"; fi; \
	export VIRTUAL_ENV="$$PWD/.venv" PATH="$$PWD/.venv/bin:$$PATH"; \
	cuda="$$CUDA" config="$$CONFIG" tag="$$TAG" exec $(wildcard $@_torch $@_tf)/pipeline.sh "$$@"

# A suite in a process of its own, for TensorFlow and PyTorch do not share one; JOBS suites at once.
test: setup
	@answers=$$(mktemp -d); trap 'rm -r "$$answers"' EXIT; failed=0; \
	printf '%s\n' $(SUITES) "tests/common $(wildcard tests/test_*.py)" | \
	xargs -d '\n' -P $(JOBS) -I SUITE bash -c 'answer="$$1/$$(basename $${2%% *})"; \
	    .venv/bin/python -m pytest $$2 >"$$answer" 2>&1; code=$$?; \
	    echo "== $$2"; cat "$$answer"; exit $$((code > 0))' suite "$$answers" SUITE || failed=1; \
	echo; for answer in "$$answers"/*; do echo "$${answer##*/}"; tail -n 1 "$$answer"; done; exit $$failed

bench: setup
	@for file in $(wildcard benchmarks/*.py); do \
	    .venv/bin/python -m benchmarks.$$(basename $$file .py) || exit; \
	done

lint: .venv/installed-dev
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m ruff check .

report: .venv/installed-dev
	@.venv/bin/python -m common.report --all

data: .venv/installed-dev
	@.venv/bin/python -m common.download $(DATASET)
