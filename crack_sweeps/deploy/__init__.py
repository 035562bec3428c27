"""A trained model at work: a split scored, photos predicted."""
