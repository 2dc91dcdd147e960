"""Judging answers: samples served to two models as in production, and the rules on the figures of their comparison."""
