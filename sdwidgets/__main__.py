"""`python -m sdwidgets` is the command `sdwidgets`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
