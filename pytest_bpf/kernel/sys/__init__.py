"""libbpf, system calls, ids and file systems."""
