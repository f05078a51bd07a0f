"""`python -m llamacpu` is the command `llamacpu`."""

from llamacpu.cli import main

if __name__ == "__main__":
    main()
