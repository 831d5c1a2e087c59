"""What every other package may use: paths, files, messages, errors, randomness, provenance."""
