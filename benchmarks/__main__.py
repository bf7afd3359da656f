"""``python -m benchmarks``, as root: run them all and print Markdown.

With ``--save FILE``, what follows the line `MARK` in the file is replaced by it.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks import (
    events_drain,
    events_live,
    events_stress,
    evidence,
    exact,
    layers,
    load_cached,
    load_one_by_one,
    machines,
    maps,
    memory,
    networks,
    rates,
    selftests,
    startup,
    whole_test,
    xdp_tools,
)
from benchmarks.report import machine
from pytest_bpf.kernel.features.privilege import privilege

LEGEND = "Medians, with quartiles and the least; ratios and differences with a 95 % interval."
MARK = "<!-- the last run -->\n"
ALL = {
    "whole_test": whole_test,
    "load_cached": load_cached,
    "load_one_by_one": load_one_by_one,
    "startup": startup,
    "evidence": evidence,
    "machines": machines,
    "exact": exact,
    "maps": maps,
    "memory": memory,
    "rates": rates,
    "selftests": selftests,
    "events_drain": events_drain,
    "events_live": events_live,
    "events_stress": events_stress,
    "networks": networks,
    "layers": layers,
    "xdp_tools": xdp_tools,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}")
    parser.add_argument("--rounds", type=int, help="how often each way is measured")
    parser.add_argument("--save", type=Path, metavar="FILE", help="a file that has the mark")
    options = parser.parse_args()
    unknown = set(options.names) - set(ALL)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(ALL)}")
    if missing := privilege():
        parser.exit(1, f"{missing}\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is open is closed
    parts = [f"Measured on {machine()}.\n{LEGEND}\n"]
    print(parts[0])
    for name in options.names or ALL:
        module = ALL[name]
        parts.append(module.measure(options.rounds or module.ROUNDS).markdown())
        print(parts[-1], flush=True)
    if options.save:
        kept = options.save.read_text(encoding="utf-8").partition(MARK)[0]
        options.save.write_text(kept + MARK + "\n" + "\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
