"""Add this pipeline to an existing DVC repository."""
