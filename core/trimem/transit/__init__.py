"""Transit memory: vectors in a fixed number of slots, as the kept half of an invertible network's code.

After MemoryTransit (WeinuoOu and BaolinLiao), with PCA as a floor and a bound on the error.
"""
