import os

# Two OpenMP threads on two busy cores spin for each other: a training of a second takes ten.
os.environ.setdefault("OMP_NUM_THREADS", "1")
