"""Jobs: one function a command; the command line and Python callers use the same ones."""
