"""The kernel's own interface: libbpf, BTF types, feature probes. No pytest, no policy."""
