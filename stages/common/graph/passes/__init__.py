"""Rewrites of the float graph that change no answer, one per module; each works in place and reports what it did."""
