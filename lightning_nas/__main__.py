"""``python -m lightning_nas``."""

import sys

from lightning_nas.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
