"""Everything that touches a transformers model, and nothing else in trimem does."""
