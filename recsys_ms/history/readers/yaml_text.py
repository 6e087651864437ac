"""The one safe reader of YAML texts: plain data or one typed error, in bounded time and memory.

PyYAML's constructors raise whatever Python raises: ``IndexError`` for ``!!int ''``, ``KeyError``
for ``!!bool maybe``, ``AttributeError`` for ``!!timestamp x``. And a short text can merge itself
into billions of entries.
"""

from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from recsys_ms.core.errors import DataError

#: Far more than any settings; read in 2 seconds and 150 MiB of memory (a list of short texts).
_MAX_CHARACTERS: Final = 2 << 20
#: Sums of ``<<: [*a, *b]`` are as long as the product of theirs; settings merge two or three.
_MAX_MERGED: Final = 16
_MAX_ENTRIES: Final = 100_000
#: Longer than any logged number; the time to read one in base 60 grows with the square.
_MAX_DIGITS: Final = 400
_NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE: Final = "tag:yaml.org,2002:merge"

# libyaml bounds the depth, and is five times as fast; some platforms have no build of it.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """PyYAML's safe loader with bounds; remembers the node it is at."""

    node: yaml.Node | None = None

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        self.node = node
        if node.tag in _NUMBERS and len(node.value) > _MAX_DIGITS:
            raise DataError(f"a number of {len(node.value)} characters")
        return super().construct_object(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        merged = [value for key, value in node.value if key.tag == _MERGE]
        n_merged = sum(len(v.value) if isinstance(v, yaml.SequenceNode) else 1 for v in merged)
        if n_merged > _MAX_MERGED:
            raise DataError(f"{n_merged} mappings merged into one, more than {_MAX_MERGED}")
        super().flatten_mapping(node)
        if len(node.value) > _MAX_ENTRIES:
            raise DataError(f"more than {_MAX_ENTRIES} entries merged into one mapping")


def _list_of(loader: Any, node: yaml.Node) -> Any:
    return loader.construct_sequence(node, deep=True)


def _path_of(loader: Any, kind: str, node: yaml.Node) -> str:
    return str(PurePosixPath(*map(str, _list_of(loader, node))))


# What Python's own dumper writes for tuples and paths, as in the hyperparameters of Lightning, is
# plain data too.
_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _list_of)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/object/apply:pathlib.", _path_of)


def yaml_value(text: str) -> Any:
    """The value of the one document in a YAML text, of the types of PyYAML's safe loader.

    Lists and dicts may hold themselves, and one part many times:
    :func:`recsys_ms.history.readers.formats.plain_values.plain` bounds what they expand to.

    Raises
    ------
    DataError
        Not YAML, not plain data, or too large.
    """
    if len(text) > _MAX_CHARACTERS:
        raise DataError(f"{len(text)} characters, more than the {_MAX_CHARACTERS} of any settings")
    loader: Any = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise DataError(" ".join(str(error).split())[:300]) from error
    except Exception as error:
        # PyYAML does not say what its constructors raise.
        raise DataError(_told(error, getattr(loader, "node", None))) from error
    finally:
        if loader is not None:
            loader.dispose()


def _told(error: Exception, node: yaml.Node | None) -> str:
    where = "" if node is None else f"line {node.start_mark.line + 1}: "
    if isinstance(node, yaml.ScalarNode) and not isinstance(error, DataError):
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        return f"{where}{node.value[:60]!r} does not have the type !!{kind}"
    return f"{where}{' '.join(str(error).split())[:200]}"
