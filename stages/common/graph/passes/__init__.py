"""Rewrites of the float graph that change no answers, one per module; each works in place."""
