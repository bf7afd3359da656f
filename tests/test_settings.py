"""Settings: read once, from options, the ini file and the environment, for one session alone."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from pytest_bpf import cache
from pytest_bpf.compile import find_compiler
from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.plugin.settings import Settings
from tests.test_libbpf import NEWER

pytest_plugins = ["pytester"]

VARIABLES = ("PYTEST_BPF_CC", "PYTEST_BPF_LIBBPF", "PYTEST_BPF_CACHE")


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def _settings(pytester: pytest.Pytester, *words: str, **environment: str) -> Settings:
    return Settings.from_config(pytester.parseconfig(*words), environment)


def test_the_option_goes_before_the_ini_file_and_that_before_the_environment(
    pytester: pytest.Pytester,
) -> None:
    variables = {"PYTEST_BPF_CC": "clang-1", "PYTEST_BPF_CACHE": "/var/c", "PYTEST_BPF_LIBBPF": "l"}
    chosen = _settings(pytester, **variables)
    assert (chosen.cc, chosen.cache_dir) == ("clang-1", Path("/var/c"))
    assert chosen.libbpf == Path("l").absolute()
    assert tuple(chosen.origins.values()) == ("PYTEST_BPF_CC", "PYTEST_BPF_LIBBPF", VARIABLES[2])
    pytester.makeini("[pytest]\nbpf_cc = clang-2\nbpf_cache_dir = c\n")
    chosen = _settings(pytester, **variables)
    assert (chosen.cc, chosen.cache_dir) == ("clang-2", pytester.path / "c")
    assert chosen.origins["bpf_cc"] == "bpf_cc"
    chosen = _settings(pytester, "--bpf-cc=clang-3", **variables)
    assert (chosen.cc, chosen.origins["bpf_cc"]) == ("clang-3", "--bpf-cc")


def test_without_a_choice_there_is_none_and_nothing_can_be_changed(
    pytester: pytest.Pytester,
) -> None:
    chosen = _settings(pytester)
    assert (chosen.cc, chosen.libbpf, chosen.cache_dir, chosen.kernels) == ("", None, None, ())
    with pytest.raises(FrozenInstanceError):
        chosen.cc = "clang"  # type: ignore[misc]


def test_reading_them_has_no_effect(pytester: pytest.Pytester) -> None:
    before = (_environment(), cache.chosen_folder(), libbpf.path())
    _settings(pytester, "--bpf-cache-dir=c", "--bpf-libbpf=none.so", PYTEST_BPF_CC="none")
    assert (_environment(), cache.chosen_folder(), libbpf.path()) == before


def _environment() -> dict[str, str]:
    """Return the environment without what pytest itself changes there."""
    return {name: text for name, text in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


REPORTS = """
import json
from pathlib import Path
from pytest_bpf.cache import chosen_folder
from pytest_bpf.kernel.sys import libbpf
def test_it(bpf_module):
    compiled = bpf_module.compile("int x = 1;\\n", name="x")
    compilers = sorted(str(compiler) for compiler in bpf_module.compilers)
    content = [str(chosen_folder()), str(compiled.object.parent.parent), compilers, libbpf.path()]
    Path("saw.json").write_text(json.dumps(content))
"""


def _what_a_session_uses(pytester: pytest.Pytester, *words: str) -> str:
    pytester.makepyfile(REPORTS)
    pytester.inline_run("-p", "no:cacheprovider", *words).assertoutcome(passed=1)
    return (pytester.path / "saw.json").read_text()


def test_two_sessions_in_one_process_share_no_setting(pytester: pytest.Pytester) -> None:
    try:
        find_compiler("zig")
    except BpfError as error:
        pytest.skip(str(error))
    if not NEWER.exists():
        pytest.skip(f"there is no newer libbpf at {NEWER}: .ci/setup builds it")
    before = _environment()
    default = (cache.chosen_folder(), libbpf.path())
    one = _what_a_session_uses(
        pytester, "--bpf-cache-dir=one", "--bpf-cc=zig", f"--bpf-libbpf={NEWER}"
    )
    assert (cache.chosen_folder(), libbpf.path()) == default
    two = _what_a_session_uses(pytester, "--bpf-cache-dir=two", "--bpf-cc=clang")
    assert str(pytester.path / "one") in one
    assert "zig's clang" in one
    assert str(NEWER) in one
    assert str(pytester.path / "two") in two
    assert str(pytester.path / "one") not in two
    assert "zig" not in two
    assert f'"{libbpf.SYSTEM}"' in two
    assert (cache.chosen_folder(), libbpf.path()) == default
    assert _environment() == before
