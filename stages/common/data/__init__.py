"""Evaluation data, how it is fed to a model, and what a model returns."""
