"""Experiments, profiles, overrides: frozen data, checked before anything is trained."""
