# make demo: LeNet5 pruned on real digits that need no download. make test: the tests. Both make their own environment.

PYTHON ?= python3
INSTALL := .venv/bin/python -m pip install -qq --disable-pip-version-check
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test

# So few images are few steps per epoch: more epochs and higher rates than the defaults. docs/trials.md#make-demo
demo: .venv/scripts
	.venv/bin/python scripts/lenet5-sbp.py --dataset=digits --shift=1 --epochs=60 --noise_learning_rate=0.05 \
		--finetune_epochs=40 --finetune_learning_rate=2e-3

# Each test process would otherwise claim the whole GPU and every core.
test: export CUDA_VISIBLE_DEVICES := -1
test: export TF_NUM_INTRAOP_THREADS := 1
test: .venv/tests
	.venv/bin/ruff check --quiet .
	.venv/bin/python -m pytest -q -n 2 --dist worksteal tests

.venv/scripts: requirements.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.txt
	touch $@

.venv/tests: tests/requirements.txt .venv/scripts
	$(INSTALL) -r tests/requirements.txt
	touch $@
