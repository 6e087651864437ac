"""Random streams: one ``rng`` keyword, no global generator, streams derived from names (SPEC 7)."""

import hashlib

import numpy as np

from recsys_ms.core.types import RngLike


def as_generator(rng: RngLike) -> np.random.Generator:
    """Turn a seed, a generator or ``None`` (fresh entropy) into a generator."""
    return np.random.default_rng(rng)


def named_stream(seed: int, *names: str) -> np.random.Generator:
    """Generator that depends on ``seed`` and ``names`` only, so the order of calls does not matter.

    Parameters
    ----------
    seed : int
        Seed of the whole computation.
    names : str
        What the stream is for, for example ``("bootstrap", task_id)``.
    """
    digest = hashlib.sha256("\x1f".join(names).encode()).digest()
    words = np.frombuffer(digest, dtype=np.uint32)
    return np.random.default_rng([seed, *words.tolist()])


def seed_from(generator: np.random.Generator) -> int:
    """Draw a seed that third-party learners accept (a non-negative 31-bit integer)."""
    return int(generator.integers(0, 2**31 - 1))
