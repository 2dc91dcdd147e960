"""The evidence for a reviewer: verdict, rules, what changed against another revision, and why."""
