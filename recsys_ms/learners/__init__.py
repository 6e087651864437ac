"""Learners on arrays: factor models, linear models, trees, Gaussian processes."""
