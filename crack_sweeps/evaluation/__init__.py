"""Counts, thresholds, tiles, scores: how good is a model, by the rules of the field."""
