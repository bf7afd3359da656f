"""The lint rules over all BPF sources of the reference suites, and of folders that are named.

``python -m benchmarks.lint [FOLDER...]``: how many programs and findings, and the processor's time.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import bpf_examples
from pytest_bpf.commands.sources import find_sources
from pytest_bpf.errors import BpfError
from pytest_bpf.lint import LintOptions, lint
from pytest_bpf.loader import Loader

ROUNDS = 3
ALL = LintOptions(select=("all",))


def measure(folder: Path) -> str:
    """Return one line for a folder: what was found, and the median time for 60 objects."""
    objects = []
    loader = Loader(on_compile=lambda _: None)
    for source in find_sources(folder):
        try:
            objects.append((loader.open(source), str(source)))
        except BpfError:
            continue
    if not objects:
        return f"{folder}: no source compiles"
    rounds = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        findings = [finding for obj, path in objects for finding in lint(obj, path, ALL)]
        rounds.append((time.process_time() - begin) * 60 / len(objects))
    rules = Counter(finding.rule for finding in findings)
    middle = sorted(rounds)[ROUNDS // 2]
    return (
        f"{folder}: {len(objects)} objects, {sum(rules.values())} findings of {len(rules)} rules, "
        f"{middle:.2f} s of processor time for 60 objects ({min(rounds):.2f} to {max(rounds):.2f})"
    )


def main() -> None:
    """Print a line for each folder."""
    folders = [Path(word).absolute() for word in sys.argv[1:]]
    for folder in folders or [Path(bpf_examples.__file__).parent]:
        print(measure(folder))


if __name__ == "__main__":
    main()
