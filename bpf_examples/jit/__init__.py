"""The same program interpreted and compiled."""
