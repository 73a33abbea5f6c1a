# make demo and make test set everything up by themselves, in .venv
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := dicom,onnx,page,test,dev

.PHONY: demo test lint slow gpu bench clean

demo: .venv/ready
	$(BIN)/autoseg demo

test: .venv/ready lint
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

slow: .venv/ready
	$(BIN)/python -m pytest -q -m slow

gpu: .venv/ready
	$(BIN)/python -m pytest -q -m gpu

bench: .venv/ready
	$(BIN)/python benchmarks/resample.py
	$(BIN)/python benchmarks/augmentation.py

.venv/ready: setup.cfg constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis
