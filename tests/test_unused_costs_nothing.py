"""Having the plugin installed and unused imports nothing that a session without BPF lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PYTEST_SIDE = {
    "pytest_bpf",
    "pytest_bpf.errors",
    "pytest_bpf.plugin.checks",
    "pytest_bpf.plugin.fixtures",
    "pytest_bpf.plugin.hookspecs",
    "pytest_bpf.plugin.imports",
    "pytest_bpf.plugin.items",
    "pytest_bpf.plugin.kernel_settings",
    "pytest_bpf.plugin.loading",
    "pytest_bpf.plugin.options",
    "pytest_bpf.plugin.paths",
    "pytest_bpf.plugin.settings",
    "pytest_bpf.plugin",
    "pytest_bpf.plugin.skips",
    "pytest_bpf.plugin.stash",
}
"""All of our modules that a session imports by itself."""

STANDARD = {"difflib"}
"""What they need of the standard library and pytest may not have imported."""

SESSION = """
import json, sys
import pytest
status = pytest.main(sys.argv[1:])
print(json.dumps([status, sorted(sys.modules)]))
"""


LOADERS = """
import json, sys
import pytest
finders = list(map(type, sys.meta_path))
pytest.main(sys.argv[1:])
from _pytest.assertion.rewrite import AssertionRewritingHook as Hook
rewritten = [name for name, module in sys.modules.items()
    if isinstance(getattr(module, "__loader__", None), Hook)]
print(json.dumps([sorted(rewritten), finders == list(map(type, sys.meta_path))]))
"""


def _python(code: str, *arguments: str, folder: Path | None = None) -> str:
    chosen = ("PYTEST_BPF_CACHE", "PYTEST_BPF_CC")  # a choice is checked, which costs an import
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    done = subprocess.run(
        (sys.executable, "-c", code, *arguments),
        cwd=folder,
        env={**environment, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_importing_the_plugin_imports_only_pytest_s_side() -> None:
    new: list[str] = json.loads(
        _python(
            "import json, sys\n"
            "import pytest\n"
            "before = set(sys.modules)\n"
            "import pytest_bpf.plugin\n"
            "print(json.dumps(sorted(set(sys.modules) - before)))"
        )
    )
    assert set(new) - STANDARD == PYTEST_SIDE


def _session(folder: Path, text: str) -> tuple[int, set[str]]:
    (folder / "test_other.py").write_text(text)
    arguments = ("-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:xdist")
    status, modules = json.loads(_python(SESSION, *arguments, "test_other.py", folder=folder))
    return status, set(modules)


def _ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] == "pytest_bpf"}


def test_a_session_that_uses_none_of_it_imports_no_station(tmp_path: Path) -> None:
    status, modules = _session(tmp_path, "def test_nothing(): pass\n")
    assert status == 0
    assert _ours(modules) == PYTEST_SIDE
    assert not modules & {"numpy", "psutil", "pyroute2", "packaging.specifiers"}


def test_a_failure_that_is_not_ours_imports_only_what_sees_that(tmp_path: Path) -> None:
    status, modules = _session(tmp_path, "def test_wrong(): assert {1: 2} == {1: 3}\n")
    assert status == 1
    assert _ours(modules) - PYTEST_SIDE == {
        "pytest_bpf.plugin.differences",
    }


def test_what_a_test_uses_is_imported_by_python_and_not_by_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_one(bpf): pass\n")
    rewritten, as_before = json.loads(_python(LOADERS, "-q", "test_one.py", folder=tmp_path))
    assert "test_one" in rewritten
    assert _ours(set(rewritten)) <= PYTEST_SIDE
    assert as_before


def test_the_names_of_the_package_are_imported_by_their_first_use() -> None:
    new: list[str] = json.loads(
        _python(
            "import json, sys\n"
            "import pytest_bpf\n"
            "before = set(sys.modules)\n"
            "pytest_bpf.XdpAction\n"
            "print(json.dumps(sorted(set(sys.modules) - before)))"
        )
    )
    assert _ours(set(new)) == {
        "pytest_bpf.kernel",
        "pytest_bpf.kernel.values",
        "pytest_bpf.kernel.values.actions",
    }


def test_a_machine_with_a_kernel_that_is_here_imports_no_client_of_servers(tmp_path: Path) -> None:
    code = (
        "import json, sys\n"
        "from pytest_bpf.errors import BpfError\n"
        "from pytest_bpf.vm import __main__\n"
        "from pytest_bpf.kernels import lookup\n"
        "try:\n"
        "    lookup.find(sys.argv[1])\n"
        "except BpfError:\n"
        "    print(json.dumps(sorted(sys.modules)))"
    )
    for choice in ("0.99", str(tmp_path)):
        modules = set(json.loads(_python(code, choice)))
        assert not modules & {"urllib.request", "http.client", "ssl", "tarfile"}
