"""What a machine keeps of pytest's start: each test has a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

WITNESSED = """\
import sys
import pytest
from pytest_bpf.vm.guest import startup

pytest.main(["-q", "-p", "no:cacheprovider", "test_one.py"], plugins=[startup.Witness()])
"""

NAMES = """
import inspect
import pluggy._manager
import _pytest.fixtures

KIND = getattr(_pytest.fixtures, "FixtureFunctionDefinition", None)
if KIND is None:
    sys.exit("this pytest marks fixtures in another way")

def hooks(plugin):
    return {name for name in dir(plugin) if name.startswith("pytest_")}

def fixtures(plugin):
    names = (name for name in dir(plugin))
    return {name for name in names if type(inspect.getattr_static(plugin, name)) is KIND}

expected = [(hooks(plugin), fixtures(plugin)) for plugin in startup.PLUGINS]
startup.keep_names_of_plugins()
for plugin, (hooked, fixed) in zip(startup.PLUGINS, expected):
    assert set(pluggy._manager.dir(plugin)) == hooked, plugin
    assert set(_pytest.fixtures.dir(plugin)) == fixed, plugin
assert sum(len(fixed) for _, fixed in expected) > 50  # our own are among them
assert _pytest.fixtures.dir(sys) == dir(sys)
assert _pytest.fixtures.dir(pytest.Item) == dir(pytest.Item)
"""

KINDS = """\
import sys
import pytest

class Base:
    @pytest.fixture
    def inherited(self):
        return 7

class Plain(Base):
    @pytest.fixture
    def late(self):
        return 8

    def pytest_report_header(self):
        return "late is here"

class Odd:
    pytest_report_header = None

    def __dir__(self):
        return ["odd"]

    @pytest.fixture
    def odd(self):
        return 9

class Hooks:
    @staticmethod
    def pytest_report_collectionfinish():
        return "a class is here"
"""

LATER = """
import _pytest.recwarn
_pytest.recwarn.added = pytest.fixture(name="added")(lambda: 10)
Plain.more = pytest.fixture(name="more")(lambda self: 11)
late = Plain()
late.pytest_report_teststatus = lambda report: ("late", "L", "LATE")
words = ["-p", "no:cacheprovider", "test_late.py"]
sys.exit(pytest.main(words, plugins=[late, Odd(), Hooks]))
"""

CONFIGURATION = """
import os
import _pytest.config
plain, made = _pytest.config.get_config, []

def get_config(*arguments, **more):
    made.append(plain(*arguments, **more))
    return made[-1]

_pytest.config.get_config = get_config
startup.keep_config()
os.environ[{variable!r}] = "x"
config = _pytest.config.get_config({arguments}, None)
params = config.invocation_params
assert list(params.args) == {arguments}
assert params.dir.samefile(".")
assert config is not _pytest.config.get_config({arguments}, None)  # each is used once
print(len(made), config.pluginmanager.has_plugin("doctest"))
"""


def run(folder: Path, code: str, **variables: str) -> str:
    """Run code in a Python of its own and return what it prints; it must succeed."""
    (folder / "test_one.py").write_text("def test_one(): pass\n")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TOX_"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env={**clean, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_names_that_are_kept_are_the_hooks_and_fixtures_of_each_plugin(tmp_path: Path) -> None:
    run(tmp_path, WITNESSED + NAMES)


def test_plugins_of_all_kinds_have_their_hooks_and_fixtures(tmp_path: Path) -> None:
    """One of a class that was there before, objects that say what they have, and a class."""
    (tmp_path / "test_late.py").write_text(
        "def test(late, odd, inherited, added, more):\n"
        "    assert (inherited, late, odd, added, more) == (7, 8, 9, 10, 11)\n"
    )
    warm = WITNESSED.replace("startup.Witness()", "startup.Witness(), Plain(), Odd(), Hooks")
    said = run(tmp_path, f"{KINDS}{warm}\nstartup.keep_names_of_plugins()\n{LATER}")
    assert {"late is here", "a class is here"} <= {
        *said.rpartition("session starts")[2].split("\n")
    }
    assert "3 late" in said  # of three phases


def last_line(folder: Path, arguments: list[str], variable: str = "OTHER") -> str:
    """Return how many configurations were made, and whether the one used has doctests."""
    code = CONFIGURATION.format(arguments=arguments, variable=variable)
    return run(folder, WITNESSED + code).splitlines()[-1]


def test_a_configuration_is_kept_for_one_session_alone(tmp_path: Path) -> None:
    assert last_line(tmp_path, ["-q", "test_one.py"]) == "2 True"


def test_a_configuration_without_a_plugin_of_pytests_is_not_the_one_kept(tmp_path: Path) -> None:
    assert last_line(tmp_path, ["-p", "no:doctest"]) == "3 False"
    assert last_line(tmp_path, ["-pno:doctest"]) == "3 False"
    assert last_line(tmp_path, ["-p", "no:xdist"]) == "2 True"  # not pytest's


def test_a_configuration_made_with_other_variables_is_not_used(tmp_path: Path) -> None:
    assert last_line(tmp_path, ["-q"], "TOX_ENV_DIR") == "3 True"
    assert last_line(tmp_path, ["-q"], "LANG") == "2 True"
