# Each target sets up what it needs in .venv. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint format clean

demo: .venv/demo  ## train the embedded default through Ray and score it
	$(BIN)/python -m jobs.train

test:  ## lint, types, import rules and all tests
	PYTHON=$(PYTHON) .ci/run

lint: .venv/test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: .venv/test
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install -q -c constraints.txt -e '.[demo]'
	touch $@

.venv/test: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install -q -c constraints.txt -e '.[demo,test]'
	touch $@ .venv/demo

clean:
	rm -rf .venv
