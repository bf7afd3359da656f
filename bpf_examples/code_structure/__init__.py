"""One map of structs instead of a map for each number."""
