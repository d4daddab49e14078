"""`python -m isogloss`, and so `torchrun -m isogloss`."""

from isogloss.cli import main

if __name__ == "__main__":
    main()
