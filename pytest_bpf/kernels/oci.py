"""Kernels in OCI images (``oci:registry/image:tag``): their manifests and layers, each checked.

Of the protocol of registries (opencontainers/distribution-spec) this needs to read two kinds of
files. They are found by their digests, so a client needs to trust nobody for them but the one who
says what a tag is.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
import urllib.error
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pytest_bpf.cache import digest, forget_old, open_cache
from pytest_bpf.errors import BpfError, UnavailableError, near_matches
from pytest_bpf.kernels import layers, store
from pytest_bpf.kernels.download import LOOPBACK, Remote, downloaded, request, require_safe
from pytest_bpf.kernels.kernel import OCI

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_bpf.kernels.kernel import Kernel

REFERENCE = re.compile(
    r"(?P<registry>[\w.-]+(?::\d+)?|\[::1\](?::\d+)?)/(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)

HUB = {"docker.io": "registry-1.docker.io"}
"""Registries whose servers have other names."""

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What images call the machines of ``uname -m``."""

LARGEST = 4 << 20
"""Bytes that a manifest may have, as registries have it."""

TAG_AGE = 24 * 3600
"""Seconds during which a tag is not asked for again."""

SHOWN = 12
"""Tags that an error lists."""


@dataclass(frozen=True)
class Reference:
    """An image: its ``registry``, its ``name`` there, and its ``tag``, or its ``digest``."""

    registry: str
    name: str
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        version = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{OCI}{self.registry}/{self.name}{version}"

    def url(self, *words: str) -> str:
        """Return the address of something of this image at its registry."""
        host = re.sub(r":\d+$", "", self.registry).strip("[]")
        scheme = "http" if host in LOOPBACK else "https"
        server = HUB.get(self.registry, self.registry)
        return "/".join([f"{scheme}://{server}/v2", self.name, *words])


def parse(choice: str) -> Reference:
    """Return the image that ``oci:...`` names; raise `BpfError` when it names none."""
    match = REFERENCE.fullmatch(choice.removeprefix(OCI))
    if not match or not re.search(r"[.:]|localhost", match["registry"]):
        raise BpfError(
            f"{choice!r} names no image; write oci:REGISTRY/IMAGE:TAG, as "
            "oci:ghcr.io/cilium/ci-kernels:6.6, or @sha256:... in place of :TAG"
        )
    return Reference(
        match["registry"], match["name"], match["tag"] or "latest", match["digest"] or ""
    )


def find(choice: str) -> Kernel:
    """Return the kernel of an image, downloaded and unpacked when it is not in the cache.

    What a tag means is asked once a day; when the registry does not answer, it is what it was.
    Raises `BpfError` when there is no such image, none for this machine, a digest differs, or
    there is no kernel in it, and `UnavailableError` when the registry does not give it.
    """
    image = parse(choice)
    if not image.digest:
        image = replace(image, digest=_digest_of(image))
    name = f"{image.name.rpartition('/')[2]}-{image.tag}-{image.digest.partition(':')[2][:12]}"
    return store.obtain(name, choice, partial(_unpack, image))


def _unpack(image: Reference, folder: Path) -> None:
    """Download the layers, and put together what they have of a kernel."""
    registry = _Registry(image)
    manifest = registry.manifest(image.digest)
    if "manifests" in manifest:
        manifest = registry.manifest(_for_this_machine(image, manifest))
    (folder / "root").mkdir()
    entries = manifest.get("layers") or []
    if not entries:
        raise BpfError(f"{image} is an image without layers, so there is no kernel in it")
    size = sum(int(entry.get("size", 0)) for entry in entries)
    store.require_room(folder, str(image), (4 * size >> 20) + 16)
    for number, entry in enumerate(entries, 1):
        kind, sha256 = str(entry.get("mediaType", "")), _sha256_of(image, entry.get("digest"))
        what = f"{image.name}:{image.tag}, layer {number} of {len(entries)}"
        with downloaded(registry.remote(what, sha256, "blobs", f"sha256:{sha256}")) as file:
            layers.unpack(file, kind, folder / "root", what)


def _for_this_machine(image: Reference, index: dict[str, Any]) -> str:
    """Return the digest of the manifest of an index that is for machines like this one."""
    here = ARCHITECTURES.get(platform.machine(), platform.machine())
    offered: dict[str, str] = {}
    for entry in index["manifests"]:
        about = entry.get("platform") or {}
        if about.get("os", "linux") == "linux":
            offered.setdefault(str(about.get("architecture", "")), str(entry.get("digest")))
    if here not in offered:
        raise BpfError(
            f"{image} has no image for {here}, which this machine is; it has "
            f"{', '.join(filter(None, offered)) or 'none at all'}"
        )
    return f"sha256:{_sha256_of(image, offered[here])}"


def _sha256_of(image: Reference, text: object) -> str:
    if not (match := re.fullmatch(r"sha256:([0-9a-f]{64})", str(text))):
        raise BpfError(f"{image}: its manifest has the digest {text!r}, not one of sha256")
    return match[1]


def _digest_of(image: Reference) -> str:
    """Return what a tag means now, or meant within `TAG_AGE` seconds."""
    place = ("oci", digest(str(image))[:32])
    before = (open_cache().read(*place) or b"").decode()
    path = open_cache().folder.joinpath(*place)
    if before and path.stat().st_mtime > time.time() - TAG_AGE:
        return before
    try:
        registry = _Registry(image)
        text = registry.content(image.tag)
    except UnavailableError:
        if not before:
            raise
        return before
    found = f"sha256:{hashlib.sha256(text).hexdigest()}"
    open_cache().write(found.encode(), *place)
    forget_old(path.parent, store.UNUSED)
    return found


class _Registry:
    """A registry, as it is asked about one image; it may want a token first."""

    def __init__(self, image: Reference) -> None:
        require_safe(image.url())
        self._image = image
        self._secret = ""

    def remote(self, name: str, sha256: str, *words: str) -> Remote:
        """Return a file of the image, to be downloaded."""
        return Remote(self._image.url(*words), name, sha256, secret=self._secret)

    def manifest(self, name: str) -> dict[str, Any]:
        """Return a manifest or an index, by its digest."""
        text = self.content(name)
        if (actual := f"sha256:{hashlib.sha256(text).hexdigest()}") != name:
            raise BpfError(
                f"{self._image}: the registry gave a manifest with the digest {actual} for {name};"
                " it is not used"
            )
        with suppress(ValueError):
            found = json.loads(text)
            if isinstance(found, dict) and ("layers" in found or "manifests" in found):
                return found
        raise BpfError(f"{self._image}: its manifest is none of an image: {text[:80]!r}")

    def content(self, name: str) -> bytes:
        """Return the text of a manifest, by its tag or digest."""
        url = self._image.url("manifests", name)
        asked = Remote(url, name, headers={"Accept": ", ".join((*INDEXES, *MANIFESTS))})
        try:
            return self._read(asked)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise BpfError(f"there is no image {self._image}{self._others()}") from None
            raise UnavailableError(
                f"{self._image}: the registry says {error.code} {error.reason}; images that not "
                "everybody may pull have to be unpacked by hand: docker create, docker cp"
            ) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise UnavailableError(
                f"{self._image}: the registry does not answer: {reason}"
            ) from None

    def _read(self, asked: Remote) -> bytes:
        """Read a small file, with a token when the registry wants one."""
        for is_last in (False, True):
            try:
                with request(replace(asked, secret=self._secret)) as answer:
                    return answer.read(LARGEST)
            except urllib.error.HTTPError as error:
                wanted = error.headers.get("WWW-Authenticate", "")
                if is_last or error.code != 401 or not wanted.startswith("Bearer "):
                    raise
                self._secret = self._token(wanted)
        raise AssertionError

    def _token(self, wanted: str) -> str:
        """Return the secret that anybody gets of a registry."""
        said = dict(re.findall(r'(\w+)="([^"]*)"', wanted))
        words = {key: said[key] for key in ("service", "scope") if key in said}
        url = f"{said.get('realm', '')}?{urlencode(words)}"
        require_safe(url)
        with request(Remote(url, "token")) as answer:
            given = json.loads(answer.read(LARGEST))
        return f"Bearer {given.get('token') or given.get('access_token', '')}"

    def _others(self) -> str:
        """Return what to say about the image's other tags, if the registry tells."""
        with suppress(OSError, ValueError, TypeError):
            listed = json.loads(self._read(Remote(self._image.url("tags", "list"), "tags")))
            tags = [str(tag) for tag in listed["tags"] or []]
            near = near_matches(self._image.tag, tags)
            more = " and others" if len(tags) > SHOWN else ""
            return f"{near}; there are {', '.join(tags[-SHOWN:])}{more}" if tags else ""
        return ""
