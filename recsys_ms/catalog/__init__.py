"""Model cards, task cards, their tables, and the meta features made of them."""
