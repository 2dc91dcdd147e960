"""The experiments of a sweep: read through DVC, ranked, and shown as one table that ends in a decision."""
