"""Explicit memory: documents compiled once to attention key-values that a model reads without their text.

After Memory³ (arXiv 2407.01178). Written: every token of each reference, at all layers, dense.
"""
