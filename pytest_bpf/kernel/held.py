"""What of BPF this process holds open: its programs, maps and links by descriptor."""

from __future__ import annotations

from pathlib import Path

_KINDS = {
    "anon_inode:bpf-prog": ("program", "prog_id"),
    "anon_inode:bpf-map": ("map", "map_id"),
    "anon_inode:bpf_link": ("link", "link_id"),
}


def held() -> set[str]:
    """Return ``"map 12"``, ``"program 7"``, ``"link 3"``: what this process holds open, by id."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            kind = _KINDS.get(str(fd.readlink()))
            if kind is not None:
                found.add(_named(fd.name, *kind))
        except OSError:  # the descriptor of this very listing, or one that another thread closed
            continue
    return found


def _named(fd: str, what: str, field: str) -> str:
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
    number = next((line.split()[1] for line in lines if line.startswith(field)), "?")
    return f"{what} {number}"
