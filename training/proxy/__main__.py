"""``python -m training.proxy``."""

from training.proxy.cli import main

if __name__ == "__main__":
    main()
