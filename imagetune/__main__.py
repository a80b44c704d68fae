"""The entry point of `python -m imagetune`."""

from imagetune.cli.main import main

if __name__ == "__main__":
    main()
