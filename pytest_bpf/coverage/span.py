"""The lines that ran during a workload, as a span of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, overload

from pytest_bpf.errors import NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.coverage.recording import Recording
    from pytest_bpf.coverage.run_lines import BranchCount, LineCounts
    from pytest_bpf.objects import Object


class LinesSpan:
    """What ran between ``__enter__`` and ``__exit__``: ``lines`` and ``branches`` afterwards."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._before: Sequence[int] | None = None
        self._lines: LineCounts | None = None

    @property
    def lines(self) -> LineCounts:
        """How often each line ran; `NotMeasuredError` before the end of the span."""
        if self._lines is None:
            raise NotMeasuredError("the lines are known at the end of the with block")
        return self._lines

    @property
    def branches(self) -> tuple[BranchCount, ...]:
        """The conditions that were evaluated; the error is that of ``lines``."""
        return self.lines.branches

    def __enter__(self) -> LinesSpan:  # noqa: PYI034 (Self is 3.11)
        self._before = self._recording.counts()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            self._lines = self._recording.between(self._before, self._recording.counts())


class MeasureLines(Protocol):
    """What the fixture ``bpf_lines`` is: `lines_of`."""

    @overload
    def __call__(self, obj: Object) -> LinesSpan: ...
    @overload
    def __call__(self, obj: Object, workload: Callable[[], object]) -> LineCounts: ...


@overload
def lines_of(obj: Object) -> LinesSpan: ...
@overload
def lines_of(obj: Object, workload: Callable[[], object]) -> LineCounts: ...
def lines_of(obj: Object, workload: Callable[[], object] | None = None) -> Any:
    """Return the lines of ``obj`` that run in a workload, or a span to put one in.

    Raises `NotMeasuredError` for an object whose lines are not counted.
    """
    recording: Recording | None = obj.recording
    if recording is None:
        raise NotMeasuredError(
            f"the lines of {obj.path.name} are not counted: it is closed, or was not compiled by "
            "this test, or the kernel takes it only as it ships"
        )
    span = LinesSpan(recording)
    if workload is None:
        return span
    with span:
        workload()
    return span.lines
