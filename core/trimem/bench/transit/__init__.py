"""What ``trimem bench transit`` runs."""
