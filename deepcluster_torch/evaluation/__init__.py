"""What train.py and pred.py write about a run's images: predictions, probes, neighbors, figures."""
