"""``python -m recsys_ms``: the command line without its script on the path."""

from recsys_ms.cli import main

if __name__ == "__main__":
    main()
