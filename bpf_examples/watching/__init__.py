"""What perf and bpftool show by hand, as values of a test."""
