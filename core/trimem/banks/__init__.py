"""What the banks of all mechanisms share: slots kept in a store, found by words and meaning."""
