# From a fresh clone: make demo. All that is made here lies in .venv, build and dist.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo scoreboard mutants test lint wheel bench clean ready

python  := .venv/bin/python
as_root := .ci/as-root
everywhere := --pyargs bpf_examples -n 2 --bpf-kernel host --bpf-kernel debian --bpf-exact

demo: ready  ## run the reference suites on this kernel, and in a machine that counts instructions
	$(as_root) $(python) -m pytest $(everywhere)

scoreboard: ready  ## the same, and write what became of the guide's claims into docs/
	$(as_root) $(python) -m pytest $(everywhere) --bpf-claims docs/guide-scoreboard.md

mutants: ready  ## break the programs of the suites, see each suite fail, and write that into docs/
	$(as_root) $(python) -m bpf_examples.mutate --markdown docs/guide-mutants.md

# tests/test_downstream.py is for the wheel, which has run it.
test: ready lint wheel  ## check the source and the wheel, then run every test on this kernel
	$(as_root) $(python) -m pytest --ignore=tests/test_downstream.py --junitxml=build/native.xml
	@$(as_root) $(python) .ci/counts.py build/native.xml

lint: ready  ## check style and types
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

wheel: ready  ## build the sdist and the wheel, and try the wheel and a user's repository with it
	.ci/wheel

bench: ready  ## measure side by side with the commands and libraries that do the same
	@.ci/setup bench
	$(as_root) $(python) -m benchmarks

clean:  ## remove all that was made here
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

help:  ## show this list
	@sed -nE 's/^([a-z]+):.*  ## (.*)/make \1\t\2/p' Makefile | expand -t 17

ready:
	@.ci/setup
