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

IMPORTS = (
    *("numpy", "psutil", "pyroute2", "execnet.gateway_base", "xdist.remote", "packaging.version"),
    *("ctypes.util", "multiprocessing.connection", "uuid", "xml.etree.ElementTree"),
)

GUEST = ("command", "init", "root", "system", "warm")
"""The modules of this package, none of which may need another station."""

SESSION = """\
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_passes(number, tmp_path, monkeypatch, capfd):
    assert number in {1, 2}

def test_fails():
    assert {"left": [1, 2]} == {"left": [1, 3]}
"""


def warm_up() -> None:
    """Import, and run a small test session, as a first test run would; nothing is printed."""
    _forget("pytest_bpf")
    _run_session()
    for name in IMPORTS:
        with suppress(ImportError):
            importlib.import_module(name)
    _import_stations()
    with suppress(Exception):
        from pytest_bpf.kernel import libbpf  # noqa: PLC0415

        libbpf.version()


def _forget(package: str) -> None:
    """Take modules out of `sys.modules`: pytest complains about those it did not import itself."""
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
        del sys.modules[name]


def _import_stations() -> None:
    import pytest_bpf  # noqa: PLC0415

    for module in pkgutil.walk_packages(pytest_bpf.__path__, "pytest_bpf."):
        if not module.name.startswith("pytest_bpf.vm"):
            with suppress(ImportError):
                importlib.import_module(module.name)


def _run_session() -> None:
    import pytest  # noqa: PLC0415

    platform.uname()
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pytest.ini").write_text("[pytest]\n")
        (Path(folder) / "test_warm.py").write_text(SESSION)
        os.chdir(folder)
        path = list(sys.path)
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            kept = [os.dup(number) for number in (1, 2)]
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
            basetemp = Path(folder, "basetemp")
            pytest.main(["-p", "no:cacheprovider", f"--basetemp={basetemp}", folder])
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)
        os.chdir(here)
    sys.path[:] = path
    _forget("test_warm")


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
    tops = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps({"opened": sorted(opened - {""}), "modules": tops}))  # noqa: T201


if __name__ == "__main__":
    sys.path.pop(0)
    sys.path[:] = json.loads(sys.argv[1])
    main()
