"""DINO (Caron et al. 2021): self-distillation of a vision transformer, without labels."""
