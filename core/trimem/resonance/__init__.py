"""Resonance memory: text as a path on a torus, found by sound and decoded with a language model's help.

After Houichime, Souhar and El Amrani, "Memory as Resonance" (arXiv 2512.20245).
"""
