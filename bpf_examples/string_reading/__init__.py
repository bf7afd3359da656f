"""Reading a string from user space."""
