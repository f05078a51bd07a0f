"""For programs that were written for something else."""
