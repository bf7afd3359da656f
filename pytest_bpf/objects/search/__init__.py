"""Find programs and maps of the whole machine."""
