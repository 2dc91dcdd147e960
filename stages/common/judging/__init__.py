"""Serving samples to two models as production does, and the rules over what their comparison comes to."""
