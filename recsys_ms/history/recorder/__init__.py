"""Recording runs while they train: a journal that survives a kill."""
