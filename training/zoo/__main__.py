"""``python -m training.zoo``."""

from training.zoo.cli import main

# Worker processes import this module again: they must not start a study of their own.
if __name__ == "__main__":
    main()
