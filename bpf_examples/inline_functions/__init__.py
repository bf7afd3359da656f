"""Small functions inlined, or called."""
