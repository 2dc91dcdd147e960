"""Serving samples to two models as production does, what their comparison comes to, and the rules over it."""
