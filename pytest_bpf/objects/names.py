"""Programs, maps, links and globals by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from pytest_bpf.errors import BpfError, UnknownNameError, near_matches

if TYPE_CHECKING:
    from collections.abc import Callable

T_co = TypeVar("T_co", covariant=True)


class NameMapping(Mapping[str, T_co]):
    """A read-only mapping whose missing key is an `UnknownNameError` that lists near matches.

    ``unlisted`` has more of them, which are found by name and not iterated.
    """

    def __init__(
        self,
        kind: str,
        where: str,
        entries: Mapping[str, T_co],
        unlisted: Mapping[str, T_co] | None = None,
    ) -> None:
        self._kind = kind
        self._where = where
        self._entries = entries
        self._unlisted = unlisted or {}

    def __getitem__(self, name: str) -> T_co:
        try:
            entries = self._entries if name in self._entries else self._unlisted
            return entries[name]
        except (KeyError, TypeError):  # not there, or a list or dict
            names = {**self._entries, **self._unlisted}
            raise unknown_name(self._kind, name, self._where, names) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {value!r}' for name, value in self.items())}}}"


def unless_closed(what: str, text: Callable[[], str]) -> str:
    """Return the text of a `repr`, or that the thing is closed: a `repr` never raises."""
    try:
        return text()
    except BpfError:
        return f"<{what}, closed>"


def unknown_name(
    kind: str, name: object, where: str, names: Mapping[str, object]
) -> UnknownNameError:
    """Return the error for a name that is not there."""
    return UnknownNameError(f"{where} has no {kind} {name!r}{near_matches(str(name), names)}")
