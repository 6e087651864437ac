"""Gaussian processes and what they share."""
