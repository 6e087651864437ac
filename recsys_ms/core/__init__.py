"""What everything else stands on: words, typed errors, files, locks, random streams, metrics.

NumPy and the standard library only; nothing here imports another part of ``recsys_ms``.
"""
