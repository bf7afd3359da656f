"""What a test run imports, before it is needed: here to list the files, there to be saved.

Run as a script it does so on the host, and prints as JSON which files were read on the way.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

IMPORTS = (
    *("numpy", "psutil", "pyroute2", "execnet.gateway_base", "xdist.remote", "packaging.version"),
    *("ctypes.util", "multiprocessing.connection", "uuid", "xml.etree.ElementTree"),
    *("encodings.ascii", "encodings.latin_1", "encodings.unicode_escape"),
)

OPTIONAL = ("setproctitle",)
"""What pytest-xdist's worker would import, if it were installed."""

GUEST = ("command", "execnet_code", "init", "root", "startup", "system", "warm")
"""The modules of this package, none of which may need another station."""

FORGOTTEN: list[object] = []

SESSION = """\
import contextlib
import pytest

with contextlib.suppress(ImportError):  # by pytest's import hook, or the next session warns of it
    import hypothesis.strategies
    import hypothesis.internal.conjecture.engine
    import hypothesis.internal.conjecture.optimiser
    import hypothesis.internal.observability

@pytest.mark.parametrize("number", [1, 2])
def test_passes(number, tmp_path, monkeypatch, capfd):
    assert number in {1, 2}

def test_fails():
    assert {"left": [1, 2]} == {"left": [1, 3]}
"""

GIVEN = """\
from hypothesis import given, settings, strategies

@settings(derandomize=True, database=None, max_examples=10, deadline=None)
@given(strategies.integers(), strategies.lists(strategies.binary()))
def test_given(number, packets):
    assert number == number
"""
"""Run when all is imported: Hypothesis looks at every module, once, whether it is the user's own.

With a seed of the test's (``derandomize``), or each machine would go on from the same one.
"""


def warm_up() -> None:
    """Import, and run small test sessions, as a first test run would; nothing is printed."""
    from pytest_bpf.vm.guest import startup  # noqa: PLC0415 (as a script, the path is known now)

    _forget("pytest_bpf")
    platform.platform()
    with startup.metadata_kept():
        _run_session("test_warm", SESSION, startup.Witness())
    for name in IMPORTS:
        with suppress(ImportError):
            importlib.import_module(name)
    _import_stations()
    providers: Any = sys.modules.get("hypothesis.internal.conjecture.providers")
    if is_local := getattr(providers, "is_local_module_file", None):
        providers.is_local_module_file = lambda _path: False  # all that is here is installed
        _run_session("test_warm_given", GIVEN)
        providers.is_local_module_file = is_local
    startup.keep_names_of_plugins()
    startup.keep_config()
    with suppress(Exception):
        from pytest_bpf.kernel.sys import libbpf  # noqa: PLC0415

        libbpf.version()


def _forget(package: str) -> None:
    """Take modules out of `sys.modules`: pytest complains about those it did not import itself.

    They stay in memory: Hypothesis knows the modules that it has seen by their addresses.
    """
    names = [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]
    FORGOTTEN.extend(map(sys.modules.pop, names))


def _import_stations() -> None:
    import pytest_bpf  # noqa: PLC0415

    for module in pkgutil.walk_packages(pytest_bpf.__path__, "pytest_bpf."):
        if not module.name.startswith("pytest_bpf.vm"):
            with suppress(ImportError):
                importlib.import_module(module.name)


def _run_session(module: str, text: str, *plugins: object) -> None:
    import pytest  # noqa: PLC0415

    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pytest.ini").write_text("[pytest]\n")
        (Path(folder) / f"{module}.py").write_text(text)
        os.chdir(folder)
        if hypothesis := sys.modules.get("hypothesis.configuration"):
            hypothesis.set_hypothesis_home_dir(f"{folder}/.hypothesis")  # not where it was before
        path = list(sys.path)
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            kept = [os.dup(number) for number in (1, 2)]
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
            basetemp = Path(folder, "basetemp")
            words = ["-p", "no:cacheprovider", f"--basetemp={basetemp}", folder]
            pytest.main(words, plugins=plugins)
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)
        os.chdir(here)
    sys.path[:] = path
    _forget(module)


def main() -> None:
    """Print the files of a warm-up: ``{"opened": [...], "modules": [...]}``."""
    opened: set[str] = set()

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            opened.add(os.path.abspath(arguments[0]))  # noqa: PTH100

    sys.addaudithook(note)
    warm_up()
    for name in GUEST:
        importlib.import_module(f"pytest_bpf.vm.guest.{name}")
    for line in Path("/proc/self/maps").read_text().splitlines():
        opened.add(line.partition("/")[1] + line.partition("/")[2])
    for module in list(sys.modules.values()):
        for name in ("__file__", "__cached__"):
            value = getattr(module, name, None)
            if isinstance(value, str):
                opened.add(value)
    tops = sorted({name.partition(".")[0] for name in sys.modules} | set(OPTIONAL))
    print(json.dumps({"opened": sorted(opened - {""}), "modules": tops}))  # noqa: T201


if __name__ == "__main__":
    sys.path.pop(0)
    sys.path[:] = json.loads(sys.argv[1])
    main()
