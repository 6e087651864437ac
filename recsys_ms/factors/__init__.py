"""Latent factors of the tasks × models matrix: masked NMF, and ALS through implicit."""
