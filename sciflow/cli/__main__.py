"""``python -m sciflow.cli``, the same as ``sciflow``."""

import sys

from sciflow.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
