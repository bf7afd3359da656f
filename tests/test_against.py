"""``--bpf-against``: tests that measure run with the sources of a revision and with today's."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import BpfError, check_equivalence
from pytest_bpf.loader import Loader
from tests.budget_sessions import Session, refused, session_of

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "times.h"
SEC("xdp") int look(struct xdp_md *ctx)
{
    __u64 n = bpf_get_prandom_u32();
    for (int i = 0; i < TIMES; i++)
        n = n * 6364136223846793005ull + bpf_ktime_get_ns();
    return n == 1 ? XDP_DROP : XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""

TESTS = """
import pytest
from pytest_bpf import Figure

@pytest.fixture(scope="module")
def loaded(bpf_module):
    return bpf_module.load("bpf/look.bpf.c", include_dirs=["bpf/include"])

def measured(obj, bpf_measure):
    program = obj.programs["look"]
    bpf_measure(program, lambda: program.test_run(bytes(64), repeat=100))

def test_look(bpf, bpf_measure):
    measured(bpf.load("bpf/look.bpf.c", include_dirs=["bpf/include"]), bpf_measure)

def test_of_the_module(loaded, bpf_measure):
    measured(loaded, bpf_measure)

def run(name):
    with open(name, "a") as file:
        file.write(".")
        return file.tell()

def test_gets_slower_and_slower(bpf, bpf_budget):
    bpf.load("bpf/look.bpf.c", include_dirs=["bpf/include"])
    nanoseconds = 100.0 * run("measured")
    samples = tuple(nanoseconds + number / 10 for number in range(20))
    interval = samples[2], samples[0], samples[4]
    bpf_budget(Figure("run_time", "prog a", *interval, "clock", samples, (46.0,) * 20))

def test_only_loads(bpf):
    run("loaded")
    bpf.load("bpf/look.bpf.c", include_dirs=["bpf/include"])
"""


class Repository:
    """A repository of one program, whose first revision is committed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.program = self.folder / "bpf" / "look.bpf.c"
        self.header = self.folder / "bpf" / "include" / "times.h"
        self.header.parent.mkdir(parents=True)
        self.program.write_text(PROGRAM)
        self.header.write_text("#define TIMES 10\n")
        (self.folder / "test_it.py").write_text(TESTS)
        (self.folder / "pytest.ini").write_text("[pytest]\n")
        self.git("init", "-q")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a")

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(
            ["git", *who, *words], cwd=self.folder, check=True, capture_output=True, text=True
        )
        return done.stdout

    def runs(self, name: str) -> int:
        """Return how often a test ran that leaves a mark."""
        return len((self.folder / name).read_text())

    def session(self, *args: str) -> Session:
        return session_of(self.folder, *args)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


pytestmark = pytest.mark.bpf_requires(attach="xdp")


def test_a_revision_is_a_source(repository: Repository) -> None:
    """Also its headers are those of the revision."""
    folders: Any = {"include_dirs": ["bpf/include"]}
    repository.program.write_text(PROGRAM.replace("n == 1", "n == TIMES"))
    repository.header.write_text("#define TIMES 11\n")
    with Loader(repository.folder) as bpf:
        now = bpf.load("bpf/look.bpf.c", **folders)
        then = bpf.load("git:HEAD:bpf/look.bpf.c", **folders)
        repository.header.write_text("#define TIMES 10\n")
        repository.program.write_text(PROGRAM)
        same = bpf.load("bpf/look.bpf.c", **folders)
        assert check_equivalence(then, same, count=300)
        assert now.programs["look"].verified_insns != then.programs["look"].verified_insns
        assert then.programs["look"].verified_insns == same.programs["look"].verified_insns
        for source, says in (
            ("git:HEAD", "a source of a revision is git:REVISION:PATH"),
            ("git:HEAD~9:bpf/look.bpf.c", "there is no revision 'HEAD~9'"),
            ("git:HEAD:bpf/lok.bpf.c", "bpf/lok.bpf.c is not in HEAD"),
        ):
            with pytest.raises(BpfError, match=re.escape(says)):
                bpf.load(source)


def test_a_comment_changes_nothing(repository: Repository) -> None:
    repository.program.write_text(f"/* what it does */\n{PROGRAM}")
    told = repository.session("--bpf-against=HEAD")
    commit = repository.git("rev-parse", "HEAD")[:10]
    assert f"bpf: compared with the sources of HEAD ({commit})\n" in told.output
    assert not told.failed, told.output
    assert told.section == ["figures: 12 as before"]
    assert repository.runs("measured") == 2
    assert repository.runs("loaded") == 1


def test_what_is_dearer_fails(repository: Repository) -> None:
    repository.header.write_text("#define TIMES 14\n")
    told = repository.session("--bpf-against=HEAD", "-n2")
    slower = told.messages.pop("test_gets_slower_and_slower")
    assert slower.startswith("prog a: run_time 300.2 ns -> 400.2 ns: +100 ns (+33.3 %), where 5 %")
    assert repository.runs("measured") == 4
    assert set(told.messages) == {"test_look", "test_of_the_module"}
    for message in told.messages.values():
        assert re.search(r"verified_insns \d+ -> \d+: .*where no change is allowed", message)


def test_what_is_allowed_is(repository: Repository) -> None:
    repository.header.write_text("#define TIMES 11\n")
    allowed = "bpf_allowed=run_time: 50%\nverified_insns: 50%\nprog_size_jited: 50%"
    told = repository.session("--bpf-against=HEAD", "-o", allowed, "-k", "look or module")
    assert not told.failed, told.output


def test_a_new_program_is_new(repository: Repository) -> None:
    repository.program.rename(repository.program.with_name("other.bpf.c"))
    tests = repository.folder / "test_it.py"
    tests.write_text(TESTS.replace("look.bpf.c", "other.bpf.c"))
    told = repository.session("--bpf-against=HEAD")
    assert not told.failed, told.output
    commit = repository.git("rev-parse", "HEAD")[:10]
    why = f"with the sources of HEAD ({commit}): bpf/other.bpf.c is not in HEAD ({commit})"
    names = ("test_gets_slower_and_slower", "test_look", "test_of_the_module")
    new = [f"test_it.py::{test}: new: {why}" for test in names]
    assert told.section == [*new, "figures: 12 new"]


def test_a_header_of_no_revision_is_todays(repository: Repository) -> None:
    repository.git("rm", "-q", "--cached", "bpf/include/times.h")
    repository.git("commit", "-q", "-m", "the header is made")
    told = repository.session("--bpf-against=HEAD")
    assert not told.failed, told.output
    assert told.section == ["figures: 12 as before"]


def test_another_checkout_will_do(repository: Repository, tmp_path: Path) -> None:
    repository.git("clone", "-q", ".", str(tmp_path / "base"))
    repository.header.write_text("#define TIMES 14\n")
    told = repository.session("--bpf-against=../base", "-k", "test_look")
    assert "bpf: compared with the sources of ../base\n" in told.output
    assert told.failed == {"test_look"}


def test_the_repository_stays_as_it_was(repository: Repository) -> None:
    repository.header.write_text("#define TIMES 14\n")
    (repository.folder / ".gitignore").write_text("*.pyc\njunit.xml\n.pytest_cache\n")
    before = repository.git("status", "--porcelain"), repository.git("worktree", "list")
    repository.session("--bpf-against=HEAD", "-k", "test_look")
    after = repository.git("status", "--porcelain"), repository.git("worktree", "list")
    assert after == before


def test_what_cannot_be_compared_with_is_said(repository: Repository, tmp_path: Path) -> None:
    here = repository.folder
    assert refused(here, "--bpf-against=mian") == (
        "--bpf-against=mian: there is no folder mian, and no revision: Needed a single revision"
    )
    assert refused(here, "--bpf-against=HEAD", "--bpf-baseline=main") == (
        "--bpf-against compares with sources, --bpf-baseline is about a file: give one of them"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    told = refused(tmp_path, "--bpf-against=HEAD")
    assert told.startswith(
        "--bpf-against=HEAD: there is no folder HEAD, and no revision: not a git"
    )
