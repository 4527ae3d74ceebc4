"""NVIDIA's kvpress as a peer: its ways to compress key-values, in an environment of its own."""
