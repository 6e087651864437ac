"""What a task is looked at with, unless something else is asked for; free to import."""

from typing import Final

#: Name of the small CLIP that ships with the package.
EMBEDDED: Final = "embedded"
#: Images that are looked at of a task, unless another number is asked for.
MAX_IMAGES: Final = 300
