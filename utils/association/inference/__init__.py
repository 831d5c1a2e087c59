"""What the scan's p values are taken for: permutation, many tests, sexes together, replication, checks of hits."""
