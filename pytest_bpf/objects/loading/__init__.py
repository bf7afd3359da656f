"""Open an object, set it up, load it, and explain a refusal."""
