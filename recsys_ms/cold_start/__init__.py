"""What is known of tasks and models without runs: images and class names through a CLIP, and cards.

Import what is needed from its module; the proxy alone needs the extra ``embed``.
"""

from typing import Final

#: Name of the small CLIP that ships with the package, which embeds tasks by default.
EMBEDDED: Final = "embedded"
#: Images of a task that are embedded by default.
MAX_IMAGES: Final = 300
