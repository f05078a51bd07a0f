"""Entry point of `python -m llamacpu`, which is the same as the command `llamacpu`."""

from llamacpu.cli import main

if __name__ == "__main__":
    main()
