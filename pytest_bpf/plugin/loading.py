"""The fixtures that load: `bpf`, `bpf_module`, and how sources are compiled for them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.plugin.fixtures import bpf_session
from pytest_bpf.plugin.settings import settings
from pytest_bpf.plugin.stash import (
    COSTS,
    EARLIER,
    LOADER,
    MADE,
    WARNED_SOURCES,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_bpf.compile import CompiledObject, CompileOptions
    from pytest_bpf.loader import Loader
    from pytest_bpf.objects import Object


@pytest.fixture
def bpf(request: pytest.FixtureRequest, _bpf_leaks: None) -> Iterator[Loader]:
    """Load BPF objects from sources, objects or text: ``bpf.load("count.bpf.c")``.

    Relative paths start at the test's file. Everything is detached and unloaded after the test.
    """
    yield from _loader(request)


@pytest.fixture(scope="module")
def bpf_module(request: pytest.FixtureRequest) -> Iterator[Loader]:
    """The same for a whole module: what it loads stays until the module's last test."""
    yield from _loader(request, bpf_session(request))


def _loader(request: pytest.FixtureRequest, kept: set[str] | None = None) -> Iterator[Loader]:
    """Yield a loader; what it loads is added to ``kept``, that of which no test is blamed."""
    from pytest_bpf.costs.figures.program import cost_so_far
    from pytest_bpf.kernel.programs.run_time_stats import statistics
    from pytest_bpf.loader import Loader
    from pytest_bpf.plugin.coverage.choice import recorder_for

    config = request.config
    shown = settings(config).costs

    made = config.stash.setdefault(MADE, set())

    def on_load(obj: Object) -> None:
        if settings(config).state:
            from pytest_bpf.plugin.artifacts.watching import follow

            follow(config, obj)
        objects = {f"program {program.id}" for program in obj.programs.values()}
        objects |= {f"map {each.id}" for each in obj.maps.values()}
        made.update(objects)
        if kept is not None:
            kept.update(objects)
        request.node.ihook.pytest_bpf_object_loaded(request=request, obj=obj)

    def on_compile(compilation: CompiledObject) -> None:
        _warn_once(config.stash.setdefault(WARNED_SOURCES, set()), compilation)
        if settings(config).lint:
            from pytest_bpf.plugin import linting

            linting.find(request.node, compilation)

    def on_close(obj: Object) -> None:
        if shown:
            costs = request.node.stash.setdefault(COSTS, [])
            costs += [cost_so_far(str(obj.path), p).as_dict() for p in obj.programs.values()]

    with ExitStack() as stack:
        if shown:
            stack.enter_context(statistics())
        loader = stack.enter_context(
            Loader(
                request.path.parent,
                compile_options=compile_options(config, request.node.ihook),
                on_load=on_load,
                on_close=on_close,
                on_compile=on_compile,
                earlier=config.stash.get(EARLIER, None),
                lines=recorder_for(request),
            )
        )
        request.node.stash[LOADER] = loader
        yield loader
    del request.node.stash[LOADER]  # the item stays until the end of the session


@pytest.fixture(scope="module")
def _bpf_c_object(bpf_module: Loader, request: pytest.FixtureRequest) -> Object:
    """The object of a file of tests in Cilium's form, which its tests share.

    The first word of a section that libbpf does not know is the kind of program.
    """
    from pytest_bpf.plugin.collect import cilium

    programs = bpf_module.open(request.path).programs
    kinds = {
        name: cilium.kind(program.section)
        for name, program in programs.items()
        if program.type == "unspec"
    }
    return bpf_module.load(request.path, types={name: kind for name, kind in kinds.items() if kind})


def _warn_once(sources: set[tuple[Path, str]], compilation: CompiledObject) -> None:
    """Show a source's compiler warnings, the first time that it is compiled with them."""
    from pytest_bpf.compile import show_warnings

    key = (compilation.source, compilation.warnings)
    if compilation.warnings and key not in sources:
        sources.add(key)
        show_warnings(compilation)


def compile_options(
    config: pytest.Config, hook: Any
) -> Callable[[str | os.PathLike[str]], CompileOptions]:
    """Return how sources are compiled: by the hooks of a place, options and the ini file."""
    from pytest_bpf.compile import BuildCommand, CompileOptions, Compiler, find_compiler

    chosen = settings(config)
    build = (
        BuildCommand(chosen.build_command, chosen.build_object, config.rootpath)
        if chosen.build_command
        else None
    )

    def options_of(source: str | os.PathLike[str]) -> CompileOptions:
        answer = hook.pytest_bpf_compiler(config=config, source=source) or chosen.cc
        flags = hook.pytest_bpf_cflags(config=config, source=source)
        compiler = answer if isinstance(answer, Compiler) else None
        if compiler is None and not build:
            compiler = find_compiler(answer or None)
        return CompileOptions(
            compiler=compiler,
            cflags=(*chosen.cflags, *(flag for some in flags if some for flag in some)),
            include_dirs=chosen.include_dirs,
            defines=chosen.defines,
            build=build,
            database=chosen.compile_commands,
        )

    return options_of
