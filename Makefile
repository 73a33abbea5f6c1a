# make demo and make test set everything up by themselves, in .venv
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := cluster,dicom,onnx,page,test,dev
# tests of parts, without whole verbs, browsers and processes of their own
PARTS := planners imaging data preprocess evaluation reconstruct networks inference training
# branches of the parts that their own quick tests take: counting them costs little, and fewer than these percent is an error
COVERED := --cov=planners $(patsubst %,--cov=autoseg.%,$(filter-out planners,$(PARTS))) $(PARTS:%=--cov-in=%)
COVERAGE := $(COVERED) --cov-report= --cov-fail-under=89
OTHERS := architecture measure_of_code names public records workspace

# of the fuzzing: seconds for each reader, and which readers (all where none is named)
SECONDS ?= 600
READER ?=

# tests start hundreds of commands, and each would compile the package again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test tests coverage check unit lint style types docs slow nightly fuzz gpu bench oldest clean

demo: .venv/ready
	$(BIN)/autoseg demo

# style and types, which keep one core busy, run beside the tests
test: .venv/ready
	$(MAKE) --jobs 3 --no-print-directory style types tests COVERAGE="$(COVERAGE)"

tests: .venv/ready
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(COVERAGE)

# the same with the branches of all of autoseg that all tests take, which makes them slower
coverage: COVERAGE := --cov --cov-report=term:skip-covered
coverage: test

# side by side: most of it keeps one core busy
check: .venv/ready
	$(MAKE) --jobs 3 --no-print-directory style types unit

unit: .venv/ready
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist worksteal --quick \
		$(PARTS:%=tests/%) $(OTHERS:%=tests/test_%.py)

lint: style types

style: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/python -m mypy

# the site, in docs/_build/html; pages of the reference are made of the code
docs: .venv-docs/ready
	.venv-docs/bin/python -m sphinx -W --keep-going -q docs docs/_build/html

.venv-docs/ready: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv-docs/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

slow: .venv/ready
	$(BIN)/python -m pytest -q -m slow

# 10 000 changed files for each reader; hours, and goes on where it was stopped
nightly: .venv/ready
	$(BIN)/python -m tests.fuzz.by_chance $(READER)

# the readers under a fuzzer that watches which lines run, in an environment of its own; no part of continuous integration
fuzz: .venv-fuzz/ready
	.venv-fuzz/bin/python -m tests.fuzz.coverage_guided --seconds $(SECONDS) $(READER)

.venv-fuzz/ready: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv-fuzz/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dicom,test,fuzz]"
	touch $@

gpu: .venv/ready
	$(BIN)/python -m pytest -q -m gpu

# side by side with nnU-Net; STAGES="step start" for some stages alone
DATA ?= ../shared/data/Dataset004_Hippocampus
bench: .venv/ready .venv-nnunet/ready
	$(BIN)/python benchmarks/side_by_side.py --nnunet .venv-nnunet/bin --data $(DATA) --folder .bench $(if $(STAGES),--stages $(STAGES))

.venv-nnunet/ready: constraints.txt
	$(PYTHON) -m venv .venv-nnunet
	.venv-nnunet/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv-nnunet/bin/python -m pip install --quiet nnunetv2==2.8.1 batchgeneratorsv2==0.3.6
	touch $@

# the lowest versions that setup.cfg allows, in an environment of their own; takes long, and is no part of continuous integration
oldest: .venv-oldest/ready
	.venv-oldest/bin/uv pip list --python .venv-oldest/bin/python
	.venv-oldest/bin/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile

# uv takes the lower bound of each package that setup.cfg names, and the newest of the others that goes with it. ipyniivue, of which
# only files are read, asks for a newer numpy than the rest: it comes without what it depends on. The extra onnx asks for a newer
# torch than the rest, so its tests skip here
OLDEST := cluster,dicom,test,dev
.venv-oldest/ready: setup.cfg
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet uv==0.13.9
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable ".[$(OLDEST)]"
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python --no-deps ipyniivue==2.4.4
	touch $@

.venv/ready: setup.cfg constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf .venv .venv-docs .venv-oldest .venv-fuzz .venv-nnunet .fuzz .bench build docs/_build docs/generated *.egg-info .pytest_cache .ruff_cache .mypy_cache .coverage .hypothesis
