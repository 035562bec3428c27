"""The hybrid and the baselines, behind one interface."""
