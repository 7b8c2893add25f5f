"""``python -m deepsky``: the command line."""

from deepsky.cli import main

if __name__ == "__main__":
    main()
