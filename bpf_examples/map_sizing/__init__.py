"""How large a map should be, and what it takes."""
