"""C values as Python values, both ways, by their BTF types."""
