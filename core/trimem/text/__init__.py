"""Text on its way into memory: reading files, cutting them into chunks, encoding chunks as vectors."""
