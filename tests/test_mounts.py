from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pytest_bpf.kernel.sys.tracefs import tracefs, with_tracefs
from tests.nobody import AS_NOBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def in_a_process(script: str, *wrapper: str) -> list[Any]:
    """Run ``script``, which appends to ``said``, in a process of its own."""
    program = f"import json\nsaid = []\n{script}\nprint(json.dumps(said))"
    command = [*wrapper, sys.executable, "-c", program]
    found: list[Any] = json.loads(subprocess.check_output(command, text=True, timeout=60))
    return found


def tracefs_mounts() -> list[str]:
    """Return this process's mounts of tracefs; a test beside this one may mount other things."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if " - tracefs " in line]


def test_tracefs_is_seen_by_the_function_and_not_by_the_host() -> None:
    before = tracefs_mounts()
    seen_outside = tracefs()

    def event(name: str, *, system: str) -> int:
        folder = tracefs()
        assert folder is not None
        return int((folder / "events" / system / name / "id").read_text())

    assert with_tracefs(event, "sched_process_exec", system="sched") > 0
    assert tracefs() == seen_outside
    assert tracefs_mounts() == before


def test_one_thread_serves_all_and_exceptions_come_back() -> None:
    first, second = with_tracefs(threading.get_ident), with_tracefs(threading.get_ident)
    assert first == second
    assert (first == threading.get_ident()) == (tracefs() is not None)
    with pytest.raises(ZeroDivisionError):
        with_tracefs(lambda: 1 // 0)


def test_the_thread_keeps_no_test_namespace_alive() -> None:
    said = in_a_process(
        "import os\nfrom pytest_bpf.kernel.sys.tracefs import tracefs, with_tracefs\n"
        "from pytest_bpf.kernel.sys.network import in_private_network\n"
        "in_private_network(lambda: with_tracefs(tracefs))\n"
        "said += [os.readlink('/proc/self/ns/net'),"
        " with_tracefs(os.readlink, '/proc/thread-self/ns/net')]"
    )
    assert said[0] == said[1]


def test_tracefs_is_seen_after_a_fork() -> None:
    said = in_a_process(
        "import os\nfrom pytest_bpf.kernel.sys.tracefs import tracefs, with_tracefs\n"
        "with_tracefs(tracefs)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if with_tracefs(tracefs) else 1)\n"
        "said.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert said == [0]


def test_tracefs_without_privilege_says_what_it_needs() -> None:
    said = in_a_process(
        "from pytest_bpf.errors import UnavailableError\n"
        "from pytest_bpf.kernel.sys.tracefs import with_tracefs\n"
        "try: with_tracefs(print)\n"
        "except UnavailableError as error: said.append(str(error))",
        *AS_NOBODY,
    )
    assert said == [
        "needs CAP_SYS_ADMIN to mount tracefs in a private mount namespace; run as root"
    ]
