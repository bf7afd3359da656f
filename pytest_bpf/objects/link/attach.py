"""Attaching a program: the row of its kind says how."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from pytest_bpf.errors import AttachError, UnavailableError
from pytest_bpf.kinds.programs import PROGRAMS, program_kind
from pytest_bpf.objects.link.options import read_options
from pytest_bpf.objects.link.refusals import refusal
from pytest_bpf.objects.refusals import missing_feature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf.objects.link.link import Link
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, given: Mapping[str, Any]) -> Link:
    """Attach a program to ``target``, or to what its section names when that is None.

    ``given`` are the options, by name. Raises `AttachError` with the program, its kind, the target
    and the kernel's reason, and `UnavailableError` when this kernel attaches no program of that
    kind.
    """
    kind = program_kind(program.type, program.section, program.expected_attach_type)
    if given.get("binary") and kind.with_binary:
        kind = PROGRAMS[kind.with_binary]
    options = read_options(program, kind, given)
    way = kind.way
    if kind.modes and options.mode is not None:
        if options.mode not in kind.modes:
            raise AttachError(
                f"program {program.name!r}: mode {options.mode!r} is none of "
                f"{', '.join(map(repr, kind.modes))}"
            )
        way = kind.modes[options.mode]
    if not way:
        raise AttachError(
            f"program {program.name!r} ({program.section}) belongs to "
            f"{kind.target or 'a hook that this version does not know'}; "
            "attach() cannot attach it"
        )
    module = import_module(f"pytest_bpf.objects.link.ways.{way}")
    try:
        link = cast("Link", module.attach(program, target, options))
    except UnavailableError as error:
        reason = missing_feature(program.section, program.type) or error
        raise UnavailableError(
            f"program {program.name!r} ({program.section}) cannot be attached here: {reason}"
        ) from None
    except OSError as error:
        raise refusal(program, kind, target, options, error) from None
    link.place = target
    return link
