"""Random streams: no global generator, streams are derived from a seed and from names."""

import hashlib

import numpy as np

from recsys_ms.core.errors import UsageError


def named_stream(seed: int, *names: str) -> np.random.Generator:
    """Generator of the computation's ``seed`` and of what it is for: ``"bootstrap", task_id``.

    It depends on nothing else, so the order of calls does not matter. A seed below 0 raises
    ``UsageError``.
    """
    if seed < 0:
        raise UsageError(f"seed is {seed}, expected a whole number of at least 0")
    digest = hashlib.sha256("\x1f".join(names).encode()).digest()
    words = np.frombuffer(digest, dtype=np.uint32)
    return np.random.default_rng([seed, *words.tolist()])


def seed_from(generator: np.random.Generator) -> int:
    """Draw a seed that third-party learners accept (a non-negative 31-bit integer)."""
    return int(generator.integers(0, 2**31 - 1))
