"""``python -m benchmarks.fuzzing``: what an input costs, and how many until a difference is found.

Times are of the processor, not of the clock: other work on the machine counts less.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError
from pytest_bpf.fuzz import DifferenceError, check_equivalence
from pytest_bpf.fuzz.inputs import seeds
from pytest_bpf.fuzz.pair import Pair
from pytest_bpf.fuzz.place import all_subjects
from pytest_bpf.fuzz.search import limit, search
from pytest_bpf.kernel.programs.runner import Runner
from pytest_bpf.loader import Loader
from pytest_bpf.traffic.packets import udp_frame

if TYPE_CHECKING:
    from collections.abc import Callable


PLANTED = Path(__file__).parent.parent / "tests" / "planted" / "filter.bpf.c"
CALLS, ROUNDS, INPUTS = 20_000, 9, 40_000
SMALL = Path(__file__).parent.parent / "bpf_examples" / "xdp_filter" / "filter.bpf.c"
SEEDS = range(3)


def each(call: Callable[[], object], calls: int = CALLS) -> list[float]:
    """Return the microseconds of a call, in rounds."""
    rounds = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        for _ in range(calls):
            call()
        rounds.append((time.process_time() - begin) / calls * 1e6)
    return rounds


def row(what: str, rounds: list[float], base: list[float]) -> str:
    low, _, high = quantiles(rounds, n=4)
    ratio = median(rounds) / median(base)
    return f"| {what} | {median(rounds):.2f} ({low:.2f} to {high:.2f}) | {ratio:.2f} |"


def of_search(bpf: Loader, source: Path, name: str, *, maps: bool) -> list[float]:
    """Return the microseconds that an input costs a search, in rounds; loading is not counted."""
    objects = bpf.load(source), bpf.load(source)
    ignore = () if maps else {*objects[0].maps, *objects[0].globals}
    programs = [obj.programs[name] for obj in objects]
    rounds = []
    with all_subjects(objects, programs, leave_out=ignore) as (before, after):
        pair, shape = Pair(before, after, renames={}), before.shape
        for seed in range(ROUNDS):
            begin = time.process_time()
            search(pair, shape, limit(INPUTS, None), seed, seeds(shape))
            rounds.append((time.process_time() - begin) / INPUTS * 1e6)
            pair.put_back()
    return rounds


def main() -> None:
    frame = udp_frame(payload=bytes(16))
    with Loader() as bpf:
        before, after = bpf.load(PLANTED), bpf.load(PLANTED, defines={"VARIANTS": 1})
        program, runner = bpf.load(PLANTED).programs["right"], Runner()
        public = each(lambda: program.test_run(frame))
        bare = each(lambda: runner.run(program.fd, frame))
        searches = [
            (what, of_search(bpf, source, name, maps=maps))
            for what, source, name in (
                ("two XDP filters", SMALL, "filter"),
                ("two larger ones, with clocks and events", PLANTED, "right"),
            )
            for maps in (False, True)
        ]
        print("| one input | microseconds | times `test_run` |\n| --- | ---: | ---: |")
        print(row("`Program.test_run`", public, public))
        print(row("a prepared run with its packet", bare, public))
        for (what, rounds), maps in zip(searches, (False, True) * 2, strict=True):
            compared = "all compared" if maps else "verdicts, packets and coverage"
            print(row(f"{what}, guided: {compared}", rounds, public))
        counts, missed = [], 0
        for number in range(1, 31):
            for seed in SEEDS:
                try:
                    check_equivalence(
                        before, after, program=("right", f"wrong_{number}"), count=INPUTS, seed=seed
                    )
                except DifferenceError as error:
                    found = re.search(r"found after (\d+)", str(error))
                    counts.append(int(found[1]) if found else INPUTS)
                except BpfError as error:
                    print(f"wrong_{number}: {error}")
                else:
                    missed += 1
        print(
            f"\n{len(counts)} of {len(counts) + missed} planted differences found within {INPUTS} "
            f"inputs; after {median(counts):.0f} (median), {max(counts)} at most"
        )


if __name__ == "__main__":
    main()
