"""``python -m dpcompress`` is the command ``dpcompress``."""

from dpcompress.cli.main import main

if __name__ == "__main__":
    main()
