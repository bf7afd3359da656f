"""What reads costs: the kernel's statistics, fixed reference programs, CPU meters."""
