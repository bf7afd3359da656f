"""The same work on five types of map."""
