"""A sweep over many machines: each experiment a task of a Ray cluster, its result an experiment of DVC."""
