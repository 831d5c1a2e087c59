"""The networks: one architecture a file, a registry of their names, targets, and checkpoints."""

# Importing an architecture registers it.
from BrainAgeNetworks import agemapper, sfcn  # noqa: F401
