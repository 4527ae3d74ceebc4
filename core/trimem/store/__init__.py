"""What lies on the disk: rows in SQLite through SQLAlchemy, tensors in safetensors files beside them."""
