"""The rules that decide, the decision, and its exit code."""
