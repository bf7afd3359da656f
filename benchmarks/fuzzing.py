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
from tests.planted.needles import NEEDLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects import Object


PLANTED = Path(__file__).parent.parent / "tests" / "planted" / "filter.bpf.c"
HAYSTACK = PLANTED.with_name("needles.bpf.c")
CALLS, ROUNDS, INPUTS = 20_000, 9, 40_000
SMALL = Path(__file__).parent.parent / "bpf_examples" / "xdp_filter" / "filter.bpf.c"
SEEDS, NEEDLE_SEEDS = range(3), range(20)
GOAL = 4.0
"""Microseconds that one `test_run` may take, with the kernel's own part of it."""


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


def goal(rounds: list[float]) -> str:
    """Return whether `GOAL` is reached; when the quartiles do not say, that is inconclusive."""
    low, _, high = quantiles(rounds, n=4)
    said = "reached" if high <= GOAL else "inconclusive" if low <= GOAL else "not reached"
    return f"* Goal: one `test_run` takes at most {GOAL:.0f} us: **{said}**. {median(rounds):.2f}."


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
            search(pair, shape, limit(INPUTS, None, seed), seed, seeds(shape))
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
        print(f"\n{goal(public)}")
        print("\n| what differs | found | inputs, median and most | seconds, median and most |")
        print("| --- | ---: | ---: | ---: |")
        planted = [
            attempt(before, after, ("right", f"wrong_{number}"), seed)
            for number in range(1, 31)
            for seed in SEEDS
        ]
        print(finds("thirty planted differences, shrunk", planted))
        for what, condition in NEEDLES.items():
            one, two = (
                bpf.load(HAYSTACK, defines={"NEEDLE": condition, "THEN": verdict})
                for verdict in ("XDP_DROP", "XDP_TX")
            )
            print(finds(what, [attempt(one, two, "find", seed) for seed in NEEDLE_SEEDS]))


def attempt(
    before: Object, after: Object, program: str | tuple[str, str], seed: int
) -> tuple[int, float] | None:
    """Return after how many inputs and seconds a difference is found and shrunk, None if not."""
    begin = time.process_time()
    try:
        check_equivalence(before, after, program=program, count=INPUTS, seed=seed)
    except DifferenceError as error:
        seconds = time.process_time() - begin
        inputs = re.search(r"found after (\d+)", str(error))
        return (int(inputs[1]) if inputs else INPUTS), seconds
    except BpfError as error:
        print(f"{program}: {error}")
    return None


def finds(what: str, attempts: list[tuple[int, float] | None]) -> str:
    done = [one for one in attempts if one is not None]
    inputs, seconds = zip(*done, strict=True) if done else ([INPUTS], [0.0])
    return (
        f"| {what} | {len(done)} of {len(attempts)} | {median(inputs):.0f}, {max(inputs)} | "
        f"{median(seconds):.2f}, {max(seconds):.2f} |"
    )


if __name__ == "__main__":
    main()
