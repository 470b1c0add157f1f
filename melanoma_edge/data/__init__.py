"""Photographs to arrays: index, data check, split, rebalancing, augmentation, drawn samples."""
