"""Maps as Python mappings, typed by BTF, and global variables."""
