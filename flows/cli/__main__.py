"""`python -m flows.cli`, as `s3t`."""

from flows.cli import main

if __name__ == "__main__":
    main()
