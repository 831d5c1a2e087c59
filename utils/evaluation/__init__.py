"""From networks to numbers: predictions, accuracy, the combination of contrasts, and deltas."""
