"""The run directory, its events and its record; one training from start to record."""
