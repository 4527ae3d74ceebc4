"""What ``trimem bench`` runs: every number in the documentation comes from here and nowhere else."""
