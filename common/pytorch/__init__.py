"""What the PyTorch papers share; only `*_torch` folders import it.

Models, losses and training loops stay in the papers.
"""
