"""What is kept of a failed test: the state of BPF in its report, and files for later."""
