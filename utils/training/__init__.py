"""Training: the Solver, the members of an ensemble, optimisation, losses, early stopping."""
