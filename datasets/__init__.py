"""Subjects and volumes: the contrast table, lists and splits, images, augmentation, simulation."""
