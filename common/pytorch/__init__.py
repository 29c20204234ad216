"""Code that the PyTorch papers share; only `*_torch` folders import it.

Nothing here is a model, a loss or a training loop: those stay in the papers.
"""
