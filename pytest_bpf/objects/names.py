"""Programs, maps, links and globals by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from pytest_bpf.errors import UnknownNameError, near_matches

T_co = TypeVar("T_co", covariant=True)


class Named(Mapping[str, T_co]):
    """A read-only mapping whose missing key is an `UnknownNameError` that lists near matches."""

    def __init__(self, what: str, where: str, entries: Mapping[str, T_co]) -> None:
        self._what = what
        self._where = where
        self._entries = entries

    def __getitem__(self, name: str) -> T_co:
        try:
            return self._entries[name]
        except KeyError:
            raise unknown(self._what, name, self._where, self._entries) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {value!r}' for name, value in self.items())}}}"


def unknown(what: str, name: object, where: str, known: Mapping[str, object]) -> UnknownNameError:
    """Return the error for a name that is not there."""
    return UnknownNameError(f"{where} has no {what} {name!r}{near_matches(str(name), known)}")
