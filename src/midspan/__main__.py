"""`python -m midspan` is `midspan`."""

from midspan.cli import main

if __name__ == "__main__":
    main()
