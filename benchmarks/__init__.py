"""What the product costs, side by side with what else does the same; see docs/benchmarks.md."""
