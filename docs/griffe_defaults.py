"""Defaults of parameters as the signature has them, for the reference (``mkdocs.yml``).

griffe takes the first of ``{"a", "b"}`` in a docstring as the default. If one entry describes
several parameters, it takes the default of the first for all of them.
"""

import re
from typing import Any, Final

import griffe

#: Docstrings with a choice, or with one entry for several parameters; others are read correctly.
_MISREAD: Final = re.compile(r"^\w+(?:, \w+)+ :|^\w+ : \{", re.MULTILINE)


class SignatureDefaults(griffe.Extension):
    """Sets the default of the signature where griffe would read another one."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Walk a package once it is loaded."""
        waiting: list[griffe.Object] = [pkg]
        while waiting:
            found = waiting.pop()
            if isinstance(found, griffe.Function | griffe.Class):
                _set_defaults(found)
            waiting.extend(
                member
                for member in found.members.values()
                if isinstance(member, griffe.Object) and not member.is_alias
            )


def _set_defaults(documented: griffe.Function | griffe.Class) -> None:
    if documented.docstring is None or not _MISREAD.search(documented.docstring.value):
        return
    for section in documented.docstring.parsed:
        if section.kind is griffe.DocstringSectionKind.parameters:
            for parameter in section.value:
                if parameter.name in documented.parameters:
                    default = documented.parameters[parameter.name].default
                    parameter.value = None if default is None else str(default)
