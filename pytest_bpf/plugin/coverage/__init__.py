"""pytest's side of coverage: what is counted, and where the counts go."""
