"""The pipeline: one package a stage, run as `python -m stages.NAME` from the repository root."""
