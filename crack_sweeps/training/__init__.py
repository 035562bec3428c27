"""Losses, optimiser, the loop, checkpoints, memory."""
