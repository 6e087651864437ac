"""Learners on features: linear regression, factorization machine, LightGBM."""
