"""Small programs written by hand, and how they are loaded."""
