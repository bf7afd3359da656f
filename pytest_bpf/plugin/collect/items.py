"""A file of C as one of pytest's modules, and each test in it as one of its functions.

The functions are real ones, in a module of their own, so that fixtures, marks, parameters, kernels
and reports are pytest's. Each says that it stands where its function in C stands.
"""

from __future__ import annotations

import errno
import re
import types
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import BpfError, RunError, UnavailableError
from pytest_bpf.kernel.btf.decl_tags import decl_tags
from pytest_bpf.objects.elf import sections
from pytest_bpf.plugin.collect import annotated, cilium, own
from pytest_bpf.plugin.collect.expectation import AnnotationError, read_annotations
from pytest_bpf.plugin.collect.patience import within_limit
from pytest_bpf.plugin.loading import compile_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_bpf.loader import Loader

BEFORE_RUN = "bpf_before_run"
"""A fixture of the user's: a function that gets the maps of an annotated program before its run."""

FUNCTION = re.compile(
    r'(?:\w+\("[^"]*"\)\s+)*(?!return\b|else\b|typedef\b)[A-Za-z_][\w\s*]*?\b(\w+)\s*'
    r"\([^;{]*(?:\{.*)?$"
)
"""A line of C on which a function seems to begin, its annotations in front."""

Test = tuple[str, "Callable[..., None]"]
"""The name of a function in C, and what tests it."""


class CFile(pytest.Module):
    """A source in C with tests in it."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Compile the source and return its tests; one failing test when it does not compile."""
        lines = function_lines(self.path)
        module = types.ModuleType(self.path.name)
        for name, test in self._tests():
            line = lines.get(name.partition("@")[0], 1)
            test.__code__ = test.__code__.replace(
                co_filename=str(self.path), co_firstlineno=line, co_name=name
            )
            test.__name__ = test.__qualname__ = name
            test.__test__ = True  # type: ignore[attr-defined]  # whatever python_functions says
            setattr(module, name, test)
        self.obj = module
        return super().collect()

    def _tests(self) -> Iterator[Test]:
        from pytest_bpf.loader import Loader

        try:
            loader = Loader(
                self.path.parent, compile_options=compile_options(self.config, self.ihook)
            )
            content = loader.compile(self.path).object.read_bytes()
            parts = sections(content)
            tags = decl_tags(parts[".BTF"]) if ".BTF" in parts else {}
        except BpfError as error:
            yield "compilation", _raising(error)
            return
        yield from _annotated(self.path, content, tags, loader)
        yield from _cilium(parts)
        for name, texts in tags.items():
            try:
                test = own.ctest(name, texts)
            except AnnotationError as error:
                yield name, _raising(error)
                continue
            if test is not None:
                yield name, _own(test)


def _annotated(
    path: Path,
    content: bytes,
    tags: dict[str, tuple[str, ...]],
    loader: Loader,
) -> Iterator[Test]:
    programs = {}
    for name, texts in tags.items():
        try:
            notes = read_annotations(texts)
        except AnnotationError as error:
            yield name, _raising(error)
            continue
        if notes is not None:
            programs[name] = notes
    for case in annotated.cases(path, content, programs):
        suffix = "@unpriv" if case.mode == "unprivileged" else ""
        yield case.program + suffix, _held(case, loader)


def _btf_file(loader: Loader, source: Path, name: str) -> str:
    """Return the file that ``__btf_path`` names: as it is, beside the source, or made of C there.

    ``types.bpf.o`` is made of ``types.c`` or ``types.bpf.c``.
    """
    beside = source.parent / name
    if Path(name).exists() or beside.exists():
        return name if Path(name).exists() else str(beside)
    stem = name.removesuffix(".o").removesuffix(".bpf")
    for made_of in (source.parent / f"{stem}{suffix}" for suffix in (".c", ".bpf.c")):
        if made_of.exists():
            return str(loader.compile(made_of).object)
    return name


def _held(case: annotated.Case, loader: Loader) -> Callable[..., None]:
    def test(_bpf_leaks: None, request: pytest.FixtureRequest) -> None:
        try:
            btf_path = _btf_file(loader, case.path, case.btf_path) if case.btf_path else ""
            annotated.run(replace(case, btf_path=btf_path), _fixture(request, BEFORE_RUN))
        except (annotated.MissedExpectationError, BpfError) as error:
            raise _failure(case.program, error) from None

    return test


def _fixture(request: pytest.FixtureRequest, name: str) -> Any:
    """Return the value of a fixture, None where nobody defines it."""
    try:
        return request.getfixturevalue(name)
    except pytest.FixtureLookupError as error:
        if error.argname != name:
            raise
        return None


def _cilium(parts: Iterable[str]) -> Iterator[Test]:
    """Yield the tests in Cilium's form; they share one object, as there."""
    for name, steps in cilium.names(parts).items():
        yield name, _chained(name, steps)


def _chained(name: str, steps: frozenset[str]) -> Callable[..., None]:
    @pytest.mark.usefixtures("bpf_module")
    def test(request: pytest.FixtureRequest) -> None:
        try:
            if "check" not in steps:
                raise cilium.CiliumTestError(
                    f"has {' and '.join(sorted(steps)).upper()}, and no CHECK"
                )
            results = cilium.run(request.getfixturevalue("_bpf_c_object"), name)
        except BpfError as error:
            raise _failure(name, error) from None
        failed = {"ERROR", "FAIL"} & {results.status, *(test.status for test in results.tests)}
        lines = "\n  ".join(results.lines())
        if failed:
            lines += "" if "pktgen" in steps else f"\n  it has no PKTGEN: {cilium.NO_PACKET}"
            pytest.fail(f"{name}: {results.status}\n  {lines.strip()}".rstrip(), pytrace=False)
        if results.status == "SKIP":
            raise pytest.skip.Exception(lines or "it skipped itself", _use_item_location=True)

    return test


def _own(test: own.CTest) -> Callable[..., None]:
    def run(bpf: Loader, request: pytest.FixtureRequest, variables: str) -> None:
        try:
            _run_own(test, variables, bpf, request)
        except (AssertionError, BpfError) as error:
            raise _failure(test.name, error) from None

    params = test.params or ("",)
    marked: Callable[..., None] = run
    if test.params:
        marked = pytest.mark.parametrize("variables", params, ids=params)(run)
    else:

        def plain(bpf: Loader, request: pytest.FixtureRequest) -> None:
            run(bpf, request, "")

        marked = plain
    for metric, limit in test.budgets:
        marked = pytest.mark.bpf_budget(**{metric: _plain(limit)})(marked)
    for mark in test.marks:
        marked = getattr(pytest.mark, mark)(marked)
    return marked


def _run_own(test: own.CTest, variables: str, bpf: Loader, request: pytest.FixtureRequest) -> None:
    packet = own.packet_bytes(test, request.path.parent, request.getfixturevalue)
    values = own.assignments(test.name, variables)
    obj = bpf.load(request.path, programs=[test.name], globals=values or None)
    if own.RESULTS not in obj.globals:
        raise AnnotationError("it does not include <bpf_test.h>, and so cannot report")
    if test.setup:
        request.getfixturevalue(test.setup)(obj)
    context = dict(test.context) or None
    try:
        within_limit(test.name, partial(obj.programs[test.name].test_run, packet, context))
    except RunError as error:
        if packet or error.errno != errno.EINVAL:
            raise
        raise RunError(f"{error}; __test_packet(...) gives it one", error.errno) from None
    results = own.results(obj)
    if results.failures:
        raise AssertionError("\n  ".join(own.lines(results)))
    if results.skip is not None:
        raise pytest.skip.Exception(results.skip.text, _use_item_location=True)
    if not results.checks:
        raise AssertionError("it reported nothing: a test makes at least one TEST_CHECK")


def _raising(error: BpfError) -> Callable[[], None]:
    def test() -> None:
        raise _failure("", error)

    return test


def _failure(name: str, error: BaseException) -> BaseException:
    """Return a failure without Python's frames: what the program did says it all."""
    if isinstance(error, UnavailableError):
        return error
    text = f"{name}: {error}" if name else str(error)
    return pytest.fail.Exception(text, pytrace=False)


def _plain(limit: str) -> Any:
    try:
        return float(limit)
    except ValueError:
        return limit


def function_lines(path: Path) -> dict[str, int]:
    """Return the lines on which functions of a source seem to begin, by name."""
    lines: dict[str, int] = {}
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        match = FUNCTION.match(line)
        if match:
            lines.setdefault(match[1], number)
    return lines
