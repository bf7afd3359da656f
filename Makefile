# From a fresh clone: make demo. All that is made here lies in .venv, build and dist.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo scoreboard mutants lines test unit lint wheel bench selftests sample clean docs newcomer ready

python  := .venv/bin/python
as_root := .ci/as-root
as_nobody := .ci/as-nobody
KERNEL := host
everywhere := --pyargs bpf_examples -n 2 --bpf-kernel host --bpf-kernel debian --bpf-exact

demo: ready  ## run the reference suites on this kernel, and in a machine that counts instructions
	$(as_root) $(python) -m pytest $(everywhere)

scoreboard: ready  ## the same, and write what became of the guide's claims into docs/
	$(as_root) $(python) -m pytest $(everywhere) --bpf-claims docs/guide-scoreboard.md

mutants: ready  ## break the programs of the suites, see each suite fail, and write that into docs/
	$(as_root) $(python) -m bpf_examples.mutate --markdown docs/guide-mutants.md

lines: ready  ## count the lines of the suites' programs that their tests run, and write that into docs/
	$(as_root) $(python) -m bpf_examples.lines --markdown docs/guide-lines.md

# tests/test_downstream.py is for the wheel, which has run it.
test: ready lint wheel  ## check the source and the wheel, then run every test on this kernel
	$(as_root) $(python) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore=tests/test_downstream.py --junitxml=build/native.xml
	@$(as_root) $(python) -m tests.counts build/native.xml

unit: ready  ## run the tests that need no privilege, as an ordinary user, in seconds
	$(as_nobody) $(python) -m pytest -q -p no:cacheprovider -m unit

lint: ready  ## check style, types, imports, docstrings, spelling and dead code
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	.venv/bin/lint-imports
	.venv/bin/interrogate --quiet pytest_bpf
	.venv/bin/codespell
	! .venv/bin/vulture | grep -E '^pytest_bpf.* unused (class|function|import|method|property)'
	$(python) -m tests.fragments
	.venv/bin/towncrier build --draft --version next >/dev/null

wheel: ready  ## build the sdist and the wheel, and try the wheel and a user's repository with it
	.ci/wheel

docs: ready  ## build the documentation as a site, in build/site
	.venv/bin/python -m sphinx --quiet --fail-on-warning --keep-going docs build/site

newcomer: ready  ## try the first five minutes in new Debian 12 and 13, and time them
	$(as_root) .ci/five-minutes

bench: ready  ## measure side by side with the commands and libraries that do the same
	@.ci/setup bench
	$(as_root) $(python) -m benchmarks

selftests: ready  ## run the kernel's own annotated programs (6.12); KERNEL=6.12: on that kernel
	$(as_root) $(python) -m benchmarks.selftests --kernel $(KERNEL)

sample: ready  ## run a part of them, in a minute
	$(as_root) $(python) -m benchmarks.selftests --files 'verifier_[a-l]*'

clean:  ## remove all that was made here
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

help:  ## show this list
	@sed -nE 's/^([a-z]+):.*  ## (.*)/make \1\t\2/p' Makefile | expand -t 17

ready:
	@.ci/setup
