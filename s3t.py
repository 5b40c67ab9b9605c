"""`python -m s3t`, as `s3t`."""

if __name__ == "__main__":
    from flows.cli import main

    main()
