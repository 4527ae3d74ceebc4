"""Alembic migrations of a bank's database; run when it is opened."""
