"""``python -m benchmarks.mutations``: damaged and random input, and what the product makes of it.

Baselines are damaged, options are given nonsense, maps are given random values, and bytes of an
object are changed. Each ends well, or in an error of the product. Anything else, and whatever takes
more than `SLOW` seconds, is printed with the seed that makes it, and the exit status is 1.
The object has no map: a changed map can take all of a kernel's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_bpf.budgets import results
from pytest_bpf.budgets.baseline import Baseline, compare_figures
from pytest_bpf.budgets.compare import compare_all
from pytest_bpf.budgets.environment import here
from pytest_bpf.budgets.results import Key, Results
from pytest_bpf.compile import compile_source
from pytest_bpf.costs.figures.figure import Figure
from pytest_bpf.errors import BpfError
from pytest_bpf.loader import Loader

SLOW = 5.0
"""Seconds of CPU time that one input may take; one that hangs is killed after `TIMEOUT`."""

TIMEOUT = 60

NUMBERS = (0, 1, -1, 255, 256, 2**31, 2**32, 2**63, 2**64, 2**200, 10**400)
NONSENSE: tuple[Any, ...] = (
    *NUMBERS,
    *(None, True, 1.5, float("nan"), float("inf"), -1e308, "", "x", "\ud800", "\0", "0x10", "é"),
    *(b"", b"ab", [], [1, [2]], {}, {"a": 1}, (), object, lambda: None, "a" * 5000),
)

Try = Callable[[random.Random], None]


def baseline_text() -> str:
    """Return a small baseline with every kind of figure."""
    where = {name: here(name, "clang 14") for name in ("verifier", "clock")}
    keys = [
        Key(where["verifier"], "test_a.py::test_x", "prog count", "verified_insns"),
        Key(where["clock"], "test_a.py::test_x", "prog count", "run_time"),
        Key(where["clock"], "test_a.py::test_y", "", "cpu"),
    ]
    series = tuple(80.0 + i % 3 for i in range(12))
    figures = {
        keys[0]: Figure.certain("verified_insns", "prog count", 230, "verifier"),
        keys[1]: Figure("run_time", "prog count", 80.0, 79.0, 81.5, "clock", series, series),
        keys[2]: Figure("cpu", "", 0.02, None, None, "clock"),
    }
    return results.format_results(Results(figures, {"run_time": "10%"}))


def damage(text: str, chance: random.Random) -> str:
    """Return JSON with one value changed, one member gone, or a few characters."""
    if chance.random() < 0.3:
        start = chance.randrange(len(text))
        middle = chance.choice(["", '"', "{", "]", "-", "1e999", "null", "[" * 3000])
        return text[:start] + middle + text[start + chance.randrange(4) :]
    content = json.loads(text)
    parent, name = chance.choice(list(_members(content)))
    if chance.random() < 0.2:
        del parent[name]
    else:
        parent[name] = chance.choice([value for value in NONSENSE if _is_json(value)])
    return json.dumps(content)


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    names = value if isinstance(value, dict) else range(len(value))
    for name in names:
        yield value, name
        if isinstance(value[name], (dict, list)):
            yield from _members(value[name])


def _is_json(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list, dict))


@contextmanager
def baselines() -> Iterator[Try]:
    """Read a damaged baseline, compare with it, and write it again."""
    text = baseline_text()
    good = results.parse(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "main.json")

        def once(chance: random.Random) -> None:
            path.write_bytes(damage(text, chance).encode(errors="surrogatepass"))
            baseline = Baseline.open(path, {})
            for finding in compare_figures(baseline, good.figures):
                assert finding.headline
            for finding in compare_all(baseline.old.figures, good.figures, {}).values():
                assert finding.details(2) is not None
            results.write(path, baseline.old.merged(good.figures))
            results.read(path)

        yield once


OPTIONS = (
    *("--bpf-cc", "--bpf-cache-dir", "--bpf-kernel", "--bpf-cpus", "--bpf-memory"),
    *("--bpf-hang-timeout", "--bpf-budget", "--bpf-baseline", "--bpf-against", "--bpf-report"),
    *("--bpf-memory-max", "--bpf-save-baseline", "--bpf-claims"),
)
WORDS = ("", "x", "0", "-1", "1e9", "/proc/x", "json:", "json:/dev/full", "json:/proc/x", "é")


@contextmanager
def options() -> Iterator[Try]:
    """Start a session with an option that has a strange value."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_it.py").write_text("def test_it(): pass\n")

        def once(chance: random.Random) -> None:
            value = chance.choice([*WORDS, "a" * 5000, "cpu=" + "9" * 500, "run_time=1ns, 2ns"])
            option = f"{chance.choice(OPTIONS)}={value}"
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", option]
            run = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
            output = run.stdout + run.stderr
            if (
                "Traceback" in output
                or "INTERNALERROR" in output
                or run.returncode not in (0, 1, 4)
            ):
                raise AssertionError(f"{option[:80]}: status {run.returncode}: {output[-500:]}")

        yield once


PROGRAM = """\
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
"""
INCLUDES = '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n'
MAPS = """\
struct inner { char name[8]; __u16 port; };
struct value { __u32 a; __s64 b; struct inner in[2]; enum { LOW, HIGH } e; _Bool flag; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8);
	__type(key, struct inner); __type(value, struct value); } structs SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2);
	__type(key, __u32); __type(value, __u64); } counts SEC(".maps");
"""


@contextmanager
def values() -> Iterator[Try]:
    """Write and look up random values; run a program with random input."""
    with Loader() as loader:
        obj = loader.load(INCLUDES + MAPS + PROGRAM)

        def once(chance: random.Random) -> None:
            table = obj.maps[chance.choice(["structs", "counts"])]
            key, value = chance.choice(NONSENSE), chance.choice(NONSENSE)
            if chance.random() < 0.5:
                key = {"name": chance.choice(NONSENSE), "port": chance.choice(NONSENSE)}
            program = obj.programs["pass"]
            match chance.randrange(5):
                case 0:
                    table[key] = value
                case 1:
                    table.get(key)
                case 2:
                    table.update({1: value})
                case 3:
                    program.test_run(value)
                case _:
                    program.test_run(bytes(64), repeat=value)

        yield once


@contextmanager
def objects() -> Iterator[Try]:
    """Load an object in which a few bytes are changed."""
    whole = compile_source(INCLUDES + PROGRAM)
    content = whole.object.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "changed.bpf.o")

        def once(chance: random.Random) -> None:
            changed = bytearray(content)
            for _ in range(chance.randrange(1, 4)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            end = chance.choice([None, chance.randrange(len(changed))])
            path.write_bytes(bytes(changed[:end]))
            with Loader() as loader:
                loader.load(path)

        yield once


KINDS = {"baselines": (baselines, 300), "options": (options, 20), "values": (values, 500)}
KINDS["objects"] = (objects, 50)
"""By name, what is tried, and how often unless it is said."""


def attempt(once: Try, seed: int) -> str:
    """Try one input; return what is wrong with how it ended, empty when nothing is."""
    start = _cpu_seconds()
    wrong = ""
    try:
        once(random.Random(seed))
    except (BpfError, KeyError):
        pass
    except Exception:  # noqa: BLE001 (each is what is looked for)
        wrong = traceback.format_exc(limit=-4)
    seconds = _cpu_seconds() - start
    return wrong or (f"it took {seconds:.1f} s" if seconds > SLOW else "")


def _cpu_seconds() -> float:
    """Return the time of this process and its children: a busy machine is no fault."""
    return sum(os.times()[:4])


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutations", description=__doc__)
    for name, (_, count) in KINDS.items():
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N")
    parser.add_argument("--seed", type=int, default=1, help="of the first input")
    chosen = vars(parser.parse_args())
    faults = 0
    for name, (kind, _) in KINDS.items():
        if not chosen[name]:
            continue
        with kind() as once:
            for seed in range(chosen["seed"], chosen["seed"] + chosen[name]):
                if wrong := attempt(once, seed):
                    faults += 1
                    print(f"{name}, --seed {seed}: {wrong}")
        print(f"{name}: {chosen[name]} tried")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
