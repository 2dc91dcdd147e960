"""The experiments of a sweep: read through DVC, ranked, and shown in a table with the best one."""
