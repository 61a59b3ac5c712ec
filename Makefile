# Each target sets up what it needs in .venv. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-cluster unit lint format clean

demo: .venv/demo  ## train the embedded default through Ray and score it
	$(BIN)/python -m jobs.train

test: lint  ## linters, types, import rules, all tests that need no cluster, coverage
	$(BIN)/python -m pytest --cov -m "not cluster"

test-cluster: .venv/test  ## the jobs on three hosts of namespaces; root, sshd, rsync and iproute2
	$(BIN)/python -m pytest tests/test_cluster.py -s $(CLUSTER)

unit: .venv/test  ## the quick tests: those that start no Ray
	$(BIN)/python -m pytest -m "not ray and not slow and not cluster"

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install -q -c constraints.txt -e '.[demo]'
	touch $@

.venv/test: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install -q -c constraints.txt -e '.[demo,test]'
	touch $@ .venv/demo

clean:
	rm -rf .venv
