# make demo: LeNet5 pruned on real digits that need no download. make test: the tests. make test-slow: those that take
# long. make test-backends: those of tests/backends on TensorFlow, JAX and PyTorch. Each makes its own environment.

PYTHON ?= python3
# Python compiles what it imports; to compile all of TensorFlow as well takes longer.
INSTALL := .venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test test-slow test-backends

# So few images are few steps per epoch: more epochs and higher rates than the defaults. docs/trials.md#make-demo
demo: .venv/scripts
	.venv/bin/python scripts/lenet5-sbp.py --dataset=digits --shift=1 --epochs=60 --noise_learning_rate=0.05 \
		--finetune_epochs=40 --finetune_learning_rate=2e-3

# Each test process would otherwise claim the whole GPU and every core. tests/test_backends.py runs tests/backends on JAX.
test test-slow: export CUDA_VISIBLE_DEVICES := -1
test test-slow: export TF_NUM_INTRAOP_THREADS := 1
test: .venv/tests
	.venv/bin/ruff check --quiet .
	.venv/bin/python -m pytest -q -n 2 --dist worksteal --ignore=tests/backends -m "not slow" tests

test-slow: .venv/jax
	.venv/bin/python -m pytest -q -n 2 --dist worksteal --ignore=tests/backends -m slow tests

test-backends: .venv/backends
	for backend in tensorflow jax torch; do \
		KERAS_BACKEND=$$backend .venv/bin/python -m pytest -q tests/backends || exit 1; \
	done

.venv/jax: .venv/tests
	$(INSTALL) "jax>=0.10,<1"
	touch $@

.venv/backends: .venv/jax
	$(INSTALL) "torch>=2.13,<3"
	touch $@

.venv/scripts: requirements.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.txt
	touch $@

.venv/tests: tests/requirements.txt .venv/scripts
	$(INSTALL) -r tests/requirements.txt
	touch $@
