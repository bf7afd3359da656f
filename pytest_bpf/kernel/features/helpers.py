"""The kernel's helper functions by name.

Helpers are a closed list: what came after number 211 are kfuncs.
"""

from __future__ import annotations

import itertools
import re
from functools import cache

from pytest_bpf.errors import UnavailableError, UnknownNameError, near_matches
from pytest_bpf.kernel.btf import enums
from pytest_bpf.kernel.features.privilege import privilege
from pytest_bpf.kernel.programs.load import Variant, calling, judge

LAST_HELPER = 211
"""``bpf_cgrp_storage_delete``, of Linux 6.2."""


@cache
def helper_ids() -> dict[str, int]:
    """Return the running kernel's helpers by name, with their numbers.

    They are read from ``enum bpf_func_id`` in the kernel's BTF; without BTF from the verifier,
    which prints the name of every helper that a program calls. Raises `UnavailableError` when
    there is no BTF and no privilege.
    """
    members = enums.kernel_enum("enum bpf_func_id", "BPF_FUNC_")
    return {f"bpf_{name}": number for name, number in members.items()} or verifier_helper_ids()


def verifier_helper_ids() -> dict[str, int]:
    """Return the helpers by name as the verifier prints them (``call bpf_ringbuf_output#130``)."""
    numbers = {}
    for number in itertools.count(1):
        log = judge("socket_filter", Variant(), calling(number), log_level=2).log
        call = re.search(rf"call (\w+)#{number}\b", log)
        if call is None:
            raise UnavailableError(
                privilege() or "the verifier does not print the names of helpers"
            )
        if call[1] == "unknown":
            break
        numbers[call[1]] = number
    return numbers


def check_helper_name(name: str) -> None:
    """Raise `UnknownNameError` for a helper that does not exist, if this kernel has all of them."""
    try:
        names = helper_ids()
    except UnavailableError:
        return
    if name not in names and LAST_HELPER in names.values():
        raise UnknownNameError(f"there is no helper {name!r}{near_matches(name, names)}")
