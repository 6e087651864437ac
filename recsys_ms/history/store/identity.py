"""Identity of many runs at once: names and content digests of whole tables, without row objects."""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_ms.core import columns as c

#: Bytes of one digest. 128 bits: two of 10^9 runs share one by chance with probability 10^-21.
DIGEST_BYTES: Final = 16
Digests = NDArray[np.bytes_]

_CONTENT: Final = tuple(name for name in c.RUN_COLUMNS if name != c.INGESTED_AT)


def make_run_ids(table: pa.Table) -> pa.Array:
    """``run_id`` of valid rows: the given one, else :func:`recsys_ms.history.run.make_run_id`."""
    given = table[c.RUN_ID].combine_chunks()
    missing = pc.is_null(given)
    texts = _joined(table.filter(missing), c.IDENTIFYING_COLUMNS)
    made = pa.array(["r-" + hashlib.sha256(text).hexdigest()[:32] for text in texts], pa.string())
    return pc.replace_with_mask(given, missing, made)


def run_digests(table: pa.Table) -> tuple[Digests, Digests]:
    """Digests (S16) of each row's ``run_id``, and of the ``run_id`` with all that the log says.

    ``ingested_at`` does not count. An unknown column adds nothing, so a column added in a later
    version does not change the digests of earlier runs.
    """
    return key_digests(table), _digests(_joined(table, _CONTENT))


def key_digests(table: pa.Table) -> Digests:
    """Digests (S16) of each row's ``run_id``."""
    return _digests(_joined(table, (c.RUN_ID,)))


def as_digests(data: bytes) -> Digests:
    """Digests from their concatenated bytes."""
    return np.frombuffer(data, dtype=f"S{DIGEST_BYTES}")


def _digests(texts: list[bytes]) -> Digests:
    blake = hashlib.blake2b
    return as_digests(b"".join([blake(t, digest_size=DIGEST_BYTES).digest() for t in texts]))


def _joined(table: pa.Table, names: Sequence[str]) -> list[bytes]:
    """``name=length:text;`` of the known columns of each row; the length keeps it unambiguous."""
    if not table.num_rows:
        return []
    parts = []
    for name in names:
        text = _as_text(table[name])
        if text.null_count == table.num_rows:
            continue
        size = pc.binary_length(text).cast(pa.string())
        field = pc.binary_join_element_wise(f"{name}=", size, ":", text, ";", "")
        parts.append(pc.fill_null(field, ""))
    joined = pc.binary_join_element_wise(*parts, "")
    return joined.cast(pa.large_binary()).to_pylist()  # type: ignore[no-any-return]


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type):
        # The bits, since the decimal text of a float may change with the version of Arrow. Adding
        # zero makes -0.0 and 0.0 one number.
        known = column.is_valid()
        values = pc.fill_null(column, 0.0).to_numpy() + 0.0
        bits = pa.chunked_array([pa.array(values.view(np.int64))])
        return pc.if_else(known, bits, None).cast(pa.string())
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64()).cast(pa.string())
    return column.cast(pa.string())
