"""A table of connections that looks after itself, and what that costs."""
