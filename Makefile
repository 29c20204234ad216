# See `make help`. A paper is a folder *_torch or *_tf; its target is the name without the suffix.
SHELL := bash
PYTHON ?= python3
EXTRA ?= cpu
JOBS ?= 2
TORCH := $(patsubst %_torch/train.py,%,$(wildcard *_torch/train.py))
TF := $(patsubst %_tf/train.py,%,$(wildcard *_tf/train.py))
SUITES := $(wildcard tests/*_tf tests/*_torch tests/common) # the slowest first
# The config key that K sets, where it is not model.n_clusters.
K_KEY_dti := model.n_prototypes
K_KEY_dfc := model.n_labels

.PHONY: help setup test test-fast lint bench report data $(TORCH) $(TF)
.NOTPARALLEL:

ifeq ($(filter $(EXTRA),cpu cuda),)
$(error EXTRA is $(EXTRA): expected cpu or cuda)
endif

define HELP
One command per paper: installs it (once), trains, predicts, evaluates, writes a report, prints the run folder.

  make PAPER             PAPER is one of: $(TORCH) $(TF)
  make test              all tests; JOBS=2 suites at a time, each in its own process
  make test-fast         the same without the tests that run whole trainings
  make bench             training steps timed against a reference implementation
  make report            one table of all runs: runs/index.html
  make data DATASET=x    download a dataset (listed in data/README.md)
  make lint              check format and style (ruff)
  make setup             install the packages of all papers into .venv

  CONFIG=mnist.yml       a file in the paper's configs/, or a path; default: a small dataset, nothing to download
  IMAGES=photos K=10     a folder of your own images, and the number of clusters or labels
  TAG=try1               a name for the run
  SET="--training.lr 3e-4 --training.seed 3"    any options of train.py
  CUDA=0                 the GPU to use
  EXTRA=cuda             install the CUDA builds (default: cpu)
  PYTHON=python3.12      the interpreter for .venv

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
	    echo "$(PYTHON) is missing or older than 3.10: choose another one, for example make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	    echo "$(PYTHON) cannot create .venv: install its venv package (Debian and Ubuntu: python3-venv)" >&2; exit 2; }
	@$(PYTHON) -m venv .venv

# One stamp file per set of extras: pip runs again only when a version changes. The packages of the other EXTRA
# that are the same folder under another name are removed first, and with them its stamps.
OTHER_cpu := cuda
OTHER_cuda := cpu
CONFLICTS_cpu := faiss-gpu tensorflow
CONFLICTS_cuda := faiss-cpu tensorflow-cpu
.venv/installed-%: pyproject.toml constraints.txt | .venv/bin/python
	@case $* in dev) cost="200 MB, a minute or two";; tf-*) cost="TensorFlow, 1 GB, a few minutes";; *) cost="PyTorch alone is 3 GB, 4 to 15 minutes";; esac; \
	    echo "Installing [$*] into .venv, once ($$cost) ..." >&2
	@if [ $* != dev ] && ls .venv/installed-*$(OTHER_$(EXTRA))* >/dev/null 2>&1; then \
	    .venv/bin/python -m pip uninstall -y $(CONFLICTS_$(EXTRA)) >&2; rm .venv/installed-*$(OTHER_$(EXTRA))*; fi
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt .venv/bin/python -m pip install -e '.[$*]' >&2
	@touch $@

setup: .venv/installed-$(EXTRA),dev
	@touch .venv/installed-dev .venv/installed-torch-$(EXTRA) .venv/installed-tf-$(EXTRA)

$(TORCH): .venv/installed-torch-$(EXTRA)
$(TF): .venv/installed-tf-$(EXTRA)
# IMAGES and K are read from the environment, so that any name is safe; SET is shell text and may contain quotes.
$(TORCH) $(TF):
	@set -- $(SET); \
	if [ -n "$$K" ]; then set -- --$(or $(K_KEY_$@),model.n_clusters) "$$K" "$$@"; fi; \
	if [ -n "$$IMAGES" ]; then set -- --dataset.name folder --dataset.path "$$IMAGES" "$$@"; fi; \
	export VIRTUAL_ENV="$$PWD/.venv" PATH="$$PWD/.venv/bin:$$PATH"; \
	cuda="$$CUDA" config="$$CONFIG" tag="$$TAG" exec $(wildcard $@_torch $@_tf)/pipeline.sh "$$@"

# One process per suite, as TensorFlow and PyTorch cannot share one.
test-fast: export PYTEST_ADDOPTS += -m "not slow"
# One thread per suite: OpenMP threads of suites that run at the same time would wait for each other.
test test-fast: export OMP_NUM_THREADS ?= 1
test test-fast: setup
	@logs=$$(mktemp -d); trap 'rm -r "$$logs"' EXIT; failed=0; \
	printf '%s\0' $(SUITES) "$(wildcard tests/test_*.py)" | \
	xargs -0 -P $(JOBS) -I SUITE bash -c 'log="$$1/$$(basename $${2%% *})"; \
	    .venv/bin/python -m pytest $$2 >"$$log" 2>&1; code=$$?; \
	    echo "== $$2"; cat "$$log"; exit $$((code > 0))' suite "$$logs" SUITE || failed=1; \
	echo; for log in "$$logs"/*; do echo "$${log##*/}"; tail -n 1 "$$log"; done; exit $$failed

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
