"""The training modes v1, v2 and frozen (model.mode), and the training state they share."""
