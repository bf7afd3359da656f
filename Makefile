# From a fresh clone: make demo. Everything is made below .venv, build and dist.

.DEFAULT_GOAL := help
.PHONY: help demo test lint wheel bench clean ready
.NOTPARALLEL:

python  := .venv/bin/python
as_root := .ci/as-root

demo: ready  ## run the reference suites on this kernel and show what each program costs
	$(as_root) $(python) -m pytest --pyargs bpf_examples --bpf-costs

test: ready lint wheel  ## lint, try the built wheel, and run every test on this kernel
	$(as_root) $(python) -m pytest --junitxml=build/native.xml
	$(as_root) $(python) .ci/counts.py build/native.xml

lint: ready  ## check style and types
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

wheel: ready  ## build the sdist and the wheel, and try the wheel in an environment of its own
	.ci/wheel

bench: ready  ## measure against the commands and libraries that do the same
	$(as_root) $(python) -m benchmarks

clean:  ## remove all that was made here
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

help:  ## show this list
	@sed -nE 's/^([a-z]+):.*  ## (.*)/make \1\t\2/p' Makefile | expand -t 12

ready:
	@.ci/setup
