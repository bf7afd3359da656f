"""``bpf_equivalent``, ``bpf_fuzz`` and ``bpf_worst``: sources or objects in, a report out."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import ValueTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pytest

    from pytest_bpf.compile.source_compiler import Source
    from pytest_bpf.fuzz import Campaign, Equivalence, Trial, WorstCase
    from pytest_bpf.fuzz.invariants import Harvest
    from pytest_bpf.fuzz.pair import States
    from pytest_bpf.loader import Loader
    from pytest_bpf.objects import Link, Object, Program


MOST_PROCESSES = 256


class _Fuzzing:
    """What the three have in common: where sources are loaded, and where reports go."""

    def __init__(self, item: pytest.Item, bpf: Loader) -> None:
        self._item, self._bpf = item, bpf

    def _object(self, source: Source | Object, load: Mapping[str, Any]) -> Object:
        if isinstance(source, (str, os.PathLike)):
            return self._bpf.load(source, **load)
        if load:
            raise ValueTypeError(
                f"{', '.join(load)}: these are for sources, and {source!r} is loaded already"
            )
        return source

    def _packets(self, corpus: Sequence[bytes] | str | os.PathLike[str]) -> Sequence[bytes]:
        if not isinstance(corpus, (str, os.PathLike)):
            return corpus
        from pytest_bpf.traffic.capture.pcap import read

        path = self._item.path.parent / corpus
        try:
            return read(path)
        except (OSError, ValueError) as error:
            raise ValueTypeError(f"corpus: {error}") from None


class CheckEquivalence(_Fuzzing):
    """Hold two programs against each other."""

    def __call__(
        self,
        before: Source | Object,
        after: Source | Object,
        *,
        program: str | tuple[str, str] | None = None,
        inputs: Iterable[str] = (),
        renames: Mapping[str, str] | None = None,
        ignore: Iterable[str] = (),
        states: States | None = None,
        corpus: Sequence[bytes] | str | os.PathLike[str] = (),
        stimulus: Callable[[bytes], object] | None = None,
        attach: Callable[[Program], Link] | None = None,
        count: int | None = None,
        seconds: float | None = None,
        seed: int = 0,
        **load: Any,
    ) -> Equivalence:
        """Give both programs the same inputs, and return what was reached and what each costs.

        ``before`` and ``after`` are sources, object files or loaded objects; ``load`` are options
        of `Loader.load` for both. ``program`` is the program's name, or (before, after); without
        it the one that both have. ``inputs`` are global variables that are part of the input.
        ``renames`` has the names that maps and variables have after, by those before, ``ignore``
        names what is not compared. ``states`` are two functions of an object whose results are
        compared in place of what only one has. ``corpus`` are packets to begin with, or a pcap
        file. It ends after ``count`` inputs or ``seconds``, and does the same for the same
        ``seed``.

        Programs that cannot be test-run are attached, where their sections say or by
        ``attach(program)``, and run when ``stimulus(data)`` makes them: it gets 16 bytes of each
        input, and this thread does what the hook is for. Then verdicts are not compared.

        Raises `DifferenceError` with the smallest input that shows a difference, and both ways
        through the C; `RunError` for programs that cannot be test-run with inputs.
        """
        from pytest_bpf.fuzz.equivalence import check_equivalence

        objects = [self._object(source, load) for source in (before, after)]
        result = check_equivalence(
            objects[0],
            objects[1],
            program=program,
            inputs=inputs,
            renames=renames,
            ignore=ignore,
            states=states,
            corpus=self._packets(corpus),
            stimulus=stimulus,
            attach=attach,
            count=count,
            seconds=seconds,
            seed=seed,
        )
        self._item.add_report_section("call", "bpf_equivalent", str(result))
        return result


class CheckInvariants(_Fuzzing):
    """Ask of a program what must hold for every input."""

    def __call__(
        self,
        what: Source | Object,
        invariant: Callable[[Trial], object] | None = None,
        *,
        program: str | None = None,
        after: Callable[[Object, int], object] | None = None,
        corpus: str | os.PathLike[str] | None = None,
        start: Sequence[bytes] | str | os.PathLike[str] = (),
        inputs: Iterable[str] = (),
        count: int | None = None,
        seconds: float | None = None,
        seed: int = 0,
        processes: int = 1,
        replay: Sequence[bytes] = (),
        **load: Any,
    ) -> Campaign:
        """Give a program inputs, and fail with the smallest one for which something does not hold.

        ``invariant`` is called with each `Trial`: it asserts, or returns False. ``after`` is called
        with the object and the number of runs since its state was as it is at first, every few
        hundred inputs. ``corpus`` is a folder, below the test's, that keeps the inputs which reach
        something, and those that failed, which are tried first. ``start`` are packets, or a
        capture. Of several ``processes``, each loads a source for itself, has a seed of its own
        and tries its part of the inputs. ``replay`` are the inputs of a failure: no others are
        tried. The rest is as with `CheckEquivalence`.
        """
        from pytest_bpf.fuzz.invariants import COUNT, check_invariants, explore
        from pytest_bpf.fuzz.processes import workers

        if not (type(processes) is int and 0 < processes <= MOST_PROCESSES):
            raise ValueTypeError(
                f"processes is {processes!r}; it is a number from 1 to {MOST_PROCESSES}"
            )
        if processes > 1 and not isinstance(what, (str, os.PathLike)):
            raise ValueTypeError(
                f"processes={processes}: each process loads the program for itself, so give a "
                "source, and not an object that is loaded"
            )
        every = COUNT if count is None else count
        options: dict[str, Any] = {
            "program": program,
            "after": after,
            "corpus": self._item.path.parent / corpus if corpus is not None else None,
            "start": self._packets(start),
            "inputs": tuple(inputs),
            "count": -(-every // processes) if type(every) is int else every,
            "seconds": seconds,
        }

        def part(number: int) -> Harvest:
            obj = self._object(what, load)
            return explore(obj, invariant, seed=seed + number, **options)

        others = range(1, 1 if replay else processes)
        with workers([partial(part, number) for number in others]) as team:
            result = check_invariants(
                self._object(what, load),
                invariant,
                seed=seed,
                others=team.results,
                replay=replay,
                about=self._about(what, invariant, after),
                **options,
            )
        self._item.add_report_section("call", "bpf_fuzz", str(result))
        return result

    def _about(self, what: Source | Object, invariant: object, after: object) -> dict[str, str]:
        """Return what a test needs to be written of a failure."""
        names = {"invariant": invariant, "after": after}
        path = os.fspath(what) if isinstance(what, (str, os.PathLike)) else ""
        return {
            "source": "" if "\n" in path else path,
            "module": getattr(getattr(self._item, "module", None), "__name__", ""),
            **{key: getattr(of, "__qualname__", "") for key, of in names.items()},
        }


class FindWorst(_Fuzzing):
    """Look for the dearest input of a program."""

    def __call__(
        self,
        what: Source | Object,
        *,
        program: str | None = None,
        start: Sequence[bytes] | str | os.PathLike[str] = (),
        inputs: Iterable[str] = (),
        earlier: int = 0,
        count: int | None = None,
        seed: int = 0,
        **load: Any,
    ) -> WorstCase:
        """Return the input for which a program runs the most instructions, of those tried."""
        from pytest_bpf.fuzz.worst import COUNT, find_worst

        result = find_worst(
            self._object(what, load),
            program=program,
            start=self._packets(start),
            inputs=inputs,
            earlier=earlier,
            count=COUNT if count is None else count,
            seed=seed,
        )
        self._item.add_report_section("call", "bpf_worst", str(result))
        return result
