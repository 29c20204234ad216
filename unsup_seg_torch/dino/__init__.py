"""DINO (Caron et al. 2021): a transformer that learns from itself, without labels."""
