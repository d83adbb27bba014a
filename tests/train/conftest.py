"""The helpers in this folder can be imported, here and by scripts that tests start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
