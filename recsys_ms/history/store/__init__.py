"""The tables of a history: Delta Lake for runs and curves; duplicates are found by identity."""
