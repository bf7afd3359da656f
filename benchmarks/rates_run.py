"""One run of `rates`, in a process of its own: every program loaded anew and measured; as JSON."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from pytest_bpf.costs.run import measure
from pytest_bpf.loader import Loader

SOURCE = Path(__file__).with_name("rates.bpf.c")

KINDS = {
    "look": "30 look-ups in a hash map",
    "update": "10 updates of it",
    "write": "30 records of a ring buffer",
    "times": "400 multiplications",
}

RUNS = 100
"""How often the program runs in a batch."""


def run(suffix: str, batches: int) -> dict[str, tuple[list[float], list[float]]]:
    """Measure each program, and each with ``suffix``: samples and what was read beside them."""
    found = {}
    names = [name + end for name in KINDS for end in ("", suffix)]
    with Loader() as bpf:
        obj = bpf.load(SOURCE, programs=names, globals={"only": os.getpid()})
        for name in names:
            with obj.programs[name].attach():
                cost = measure(obj.programs[name], drive, batches=batches)
            found[name] = (list(cost.figure.samples), list(cost.figure.reference))
    return found


def drive() -> None:
    for _ in range(RUNS):
        os.getpgid(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suffix", choices=("_more", "_1"))
    parser.add_argument("loads", type=int)
    parser.add_argument("--batches", type=int, default=30)
    options = parser.parse_args()
    print(json.dumps([run(options.suffix, options.batches) for _ in range(options.loads)]))
