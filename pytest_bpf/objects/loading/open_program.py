"""A program of an object that is open and not loaded."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import LoadError, UnknownNameError, near_matches
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.btf.enums import program_type_id
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kinds.attach_types import AttachType
from pytest_bpf.kinds.flags import ProgramFlags
from pytest_bpf.kinds.programs import parse_section
from pytest_bpf.objects.identity import program_type
from pytest_bpf.objects.loading.sections import section_flags
from pytest_bpf.objects.names import unless_closed

if TYPE_CHECKING:
    from pytest_bpf.objects.elf import SourceLine
    from pytest_bpf.objects.loading.open_object import OpenObject


@checked_methods
class OpenProgram:
    """A program that is not loaded yet: ``name``, ``section`` and what can be set before the load.

    Setting raises `LoadError` for a value that libbpf or the section refuses, and
    `UnknownNameError` with near matches for a name that does not exist.
    """

    def __init__(self, obj: OpenObject, name: str) -> None:
        self.name = name
        self._object = obj

    @property
    def section(self) -> str:
        """The section that it stands in, as the source says it."""
        return self._object.handle.section(self.name)

    @property
    def type(self) -> str:
        """The program type by libbpf's name, as in ``"xdp"``; ``"unspec"`` for an unknown section.

        Set it to a type (``"xdp"``) or to the text of a section (``"cgroup/connect4"``), which
        sets the expected attach type and the flags too.
        """
        return program_type(self._pointer)

    @type.setter  # noqa: A003 (the property)
    def type(self, value: str) -> None:
        before = self.type
        if not isinstance(value, str):
            raise LoadError(f"{self._where}: type={value!r}: pass a program type, as in 'xdp'")
        parsed = parse_section(value)
        name = parsed.kind.type if parsed and not _is_type(value) else value
        number = program_type_id(name)
        if before not in {"unspec", name}:
            raise LoadError(
                f"{self._where}: it cannot be of type {name!r}: its section makes it {before!r}"
            )
        self._call("set_type", number)
        if parsed and parsed.kind.type == name:
            self._call("set_expected_attach_type", int(parsed.attach_type))
            self.flags |= section_flags(value)

    @property
    def expected_attach_type(self) -> AttachType | int:
        """Where the program runs, as the kernel's enum has it; 0 where its type needs none.

        Set it to a member, its number or its name (``"xdp_devmap"``).
        """
        number = int(libbpf.call("bpf_program__expected_attach_type", self._pointer))
        if number == 0 and not self.type.startswith("cgroup"):
            return 0
        return AttachType(number) if number in AttachType.__members__.values() else number

    @expected_attach_type.setter
    def expected_attach_type(self, value: AttachType | int | str) -> None:
        self._call("set_expected_attach_type", _attach_type(self._where, value))

    @property
    def flags(self) -> ProgramFlags:
        """The flags of ``BPF_PROG_LOAD``, with those that the section stands for."""
        own = ProgramFlags(libbpf.call("bpf_program__flags", self._pointer))
        return own | section_flags(self.section)

    @flags.setter
    def flags(self, value: int) -> None:
        self._call("set_flags", _uint32(self._where, "flags", value))

    @property
    def autoload(self) -> bool:
        """Whether `OpenObject.load` loads it."""
        return bool(libbpf.call("bpf_program__autoload", self._pointer))

    @autoload.setter
    def autoload(self, value: bool) -> None:
        self._call("set_autoload", bool(value))

    @property
    def log_level(self) -> int:
        """How much the verifier says: 1 the path to a refusal, 2 every state, 4 figures alone."""
        return self._object.settings.log_levels.get(self.name, libbpf.LOG_STATS)

    @log_level.setter
    def log_level(self, value: int) -> None:
        if not isinstance(value, int) or not 0 <= value < 8:
            raise LoadError(f"{self._where}: log_level={value!r}; it takes 0 to 7")
        self._object.settings.log_levels[self.name] = value

    @property
    def attach_target(self) -> Any:
        """What the program attaches to: as it was set, or as its section says; None for neither.

        Set it to a kernel's or module's function (``"vfs_read"``, ``"veth:veth_xmit"``), to a
        program and its function (``(program, "name")``), or to what `Program.attach` takes.
        """
        targets = self._object.settings.attach_targets
        if self.name in targets:
            return targets[self.name]
        parsed = parse_section(self.section)
        return parsed.target or None if parsed else None

    @attach_target.setter
    def attach_target(self, value: Any) -> None:
        self._object.settings.attach_targets[self.name] = value

    @property
    def tags(self) -> tuple[str, ...]:
        """The BTF declaration tags of its function, in the order of the source."""
        return self._object.tags.get(self.name, ())

    @property
    def source_lines(self) -> tuple[SourceLine, ...]:
        """The source lines that its instructions were made of; empty without ``-g``."""
        section, start = self._object.handle.section_starts[self.name]
        end = start + self.insn_cnt
        lines = self._object.source_lines
        return tuple(
            line for line in lines if line.section == section and start <= line.start < end
        )

    @property
    def insn_cnt(self) -> int:
        """Its number of instructions in the object file."""
        return int(libbpf.call("bpf_program__insn_cnt", self._pointer))

    def __repr__(self) -> str:
        name = f"OpenProgram {self.name}"
        return unless_closed(name, lambda: f"<{name} ({self.type})>")

    @property
    def _pointer(self) -> int:
        return self._object.handle.programs[self.name]

    @property
    def _where(self) -> str:
        return f"{self._object.path.name}: program {self.name!r} ({self.section})"

    def _call(self, function: str, value: object) -> None:
        try:
            self._object.call(f"bpf_program__{function}", "program", self.name, value)
        except OSError as error:
            word = function.removeprefix("set_")
            raise LoadError(
                f"{self._where}: {word} cannot be {value!r}: {error.strerror}"
            ) from None


def _is_type(name: str) -> bool:
    with suppress(UnknownNameError):
        return bool(program_type_id(name))
    return False


def _attach_type(where: str, value: AttachType | int | str) -> int:
    if isinstance(value, int):
        return _uint32(where, "expected_attach_type", value)
    names = AttachType.__members__
    name = str(value).upper().removeprefix("BPF_")
    if name not in names:
        lower = [member.lower() for member in names]
        raise UnknownNameError(
            f"{where}: there is no attach type {value!r}{near_matches(str(value), lower)}"
        )
    return int(names[name])


def _uint32(where: str, setting: str, value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**32:
        raise LoadError(f"{where}: {setting}={value!r}; it takes 0 to {2**32 - 1}")
    return int(value)
