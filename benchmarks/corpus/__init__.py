"""Public sources, compiled and loaded by clang and libbpf alone and by us."""
