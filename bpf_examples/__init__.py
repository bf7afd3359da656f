"""Reference suites to copy: ``pytest --pyargs bpf_examples`` runs them on this kernel."""
