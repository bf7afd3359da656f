"""pytest's entry point: hooks only, each a few lines that call a station."""
