# make demo and make test set everything up by themselves, in .venv
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := dicom,onnx,page,test,dev
COVERAGE :=
# tests of parts, without whole verbs, browsers and processes of their own
PARTS := planners imaging data preprocess evaluation reconstruct networks inference training
OTHERS := architecture measure_of_code names public records workspace

.PHONY: demo test coverage check lint slow gpu bench oldest clean

demo: .venv/ready
	$(BIN)/autoseg demo

test: .venv/ready lint
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile $(COVERAGE)

# the same with the branches that the tests take, which makes them slower
coverage: COVERAGE := --cov --cov-report=term:skip-covered
coverage: test

check: .venv/ready lint
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist worksteal \
		$(PARTS:%=tests/%) $(OTHERS:%=tests/test_%.py)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: .venv/ready
	$(BIN)/python -m pytest -q -m slow

gpu: .venv/ready
	$(BIN)/python -m pytest -q -m gpu

bench: .venv/ready
	$(BIN)/python benchmarks/resample.py
	$(BIN)/python benchmarks/augmentation.py

# the lower bounds of setup.cfg, in an environment of their own; takes long, and is no part of continuous integration
oldest: .venv-oldest/ready
	.venv-oldest/bin/python -m pip list
	.venv-oldest/bin/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile

# ipyniivue, of which only files are read, asks for a newer numpy than the rest: it comes without what it depends on
OLDEST := dicom,onnx,test,dev
.venv-oldest/ready: setup.cfg tests/helpers/lower_bounds.py
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) tests/helpers/lower_bounds.py setup.cfg $(OLDEST) > .venv-oldest/bounds.txt
	.venv-oldest/bin/python -m pip install --quiet --constraint .venv-oldest/bounds.txt --editable ".[$(OLDEST)]"
	.venv-oldest/bin/python -m pip install --quiet --no-deps ipyniivue==2.4.0
	touch $@

.venv/ready: setup.cfg constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf .venv .venv-oldest build *.egg-info .pytest_cache .ruff_cache .mypy_cache .coverage .hypothesis
