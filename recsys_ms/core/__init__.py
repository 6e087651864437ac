"""Foundations: column names, typed errors, settings, state, files, locks, executors, metrics.

NumPy and the standard library only; nothing here imports another part of ``recsys_ms``.
"""
