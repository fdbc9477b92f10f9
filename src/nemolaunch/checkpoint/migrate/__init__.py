"""Training checkpoints of one framework made those of another: the tensors stay where they are, their names change."""
