"""Hosts to log in to by ssh, which are this one: each a real sshd on a port of 127.0.0.1.

It runs in a mount namespace, whose users and ``/run`` are its own; nothing is installed. What it
starts sees the same files as the tests, as a machine is saved for the users that there are.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_bpf.cache import open_cache

if TYPE_CHECKING:
    from collections.abc import Iterator

UNPACKED = Path(__file__).parents[1] / "build/openssh"
"""Where `.ci/setup` unpacks openssh-server."""

PATIENCE = 60

MOUNTS = """
set -e
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /run/sshd
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/shadow" /etc/shadow
shift
exec "$@"
"""

CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv PYTEST_BPF_CACHE={cache} THERE=1
ForceCommand nsenter --mount=/proc/{pid}/ns/mnt sh -c "cd && exec $SSH_ORIGINAL_COMMAND"
"""

CLIENT = """
Host {name}
    HostName 127.0.0.1
    Port {port}
    User root
    IdentityFile {folder}/user
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known
    StrictHostKeyChecking yes
    LogLevel ERROR
"""


class SshHost:
    """A host: its ``name``, and the file for ``ssh -F`` that leads there."""

    def __init__(self, name: str, folder: Path, process: subprocess.Popen[str]) -> None:
        self.name = name
        self.config = folder / "client"
        self.pid = process.pid
        self._process = process

    def choice(self, *words: str) -> str:
        """What `--bpf-kernel` takes."""
        return "//".join([f"ssh={self.name}", f"ssh_config={self.config}", *words])

    def end(self) -> None:
        """End it with all that was started there, as a host that loses its power does."""
        processes = psutil.Process(self.pid).children(recursive=True)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.kill()
        self._process.wait(PATIENCE)


@contextmanager
def ssh_host(name: str, folder: Path) -> Iterator[SshHost]:
    """Start one; a skip says what it lacks."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:{UNPACKED}/usr/sbin")
    if sshd is None or not shutil.which("ssh"):
        pytest.skip("no sshd or ssh; .ci/setup unpacks openssh-server, apt has openssh-client")
    if os.geteuid() != 0:
        pytest.skip("only root can start an sshd that logs in root")
    _write_files(name, folder)
    port = _free_port()
    texts = {"server": CONFIG, "client": CLIENT}
    for file, text in texts.items():
        words = {"name": name, "port": port, "folder": folder, "pid": os.getpid()}
        words["cache"] = open_cache().folder
        (folder / file).write_text(text.format(**words))
    key = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {key}")
    process = subprocess.Popen(
        [
            *("unshare", "--mount", "sh", "-c", MOUNTS, "sh", str(folder)),
            *(sshd, "-D", "-e", "-f", str(folder / "server")),
        ],
        env=os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, UNPACKED.glob("usr/lib/*-gnu")))},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    line = ""
    for line in process.stderr:
        if "Server listening" in line:
            break
    assert "Server listening" in line, f"sshd ended: {line}"
    rest = threading.Thread(target=process.stderr.read, daemon=True)
    rest.start()
    host = SshHost(name, folder, process)
    try:
        yield host
    finally:
        if process.poll() is None:
            host.end()
        rest.join(PATIENCE)
        process.stderr.close()


def _write_files(name: str, folder: Path) -> None:
    for key in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]
        subprocess.run([*command, str(folder / key)], check=True, timeout=PATIENCE)
    users = Path("/etc/passwd").read_text()
    if "\nsshd:" not in users:
        users += "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
    (folder / "passwd").write_text(users)
    (folder / "shadow").write_text("root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
