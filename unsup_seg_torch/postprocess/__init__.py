"""Steps after a network: the fully connected CRF, and normalized cuts."""
