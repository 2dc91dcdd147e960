"""The rules that decide, as an exit code."""
