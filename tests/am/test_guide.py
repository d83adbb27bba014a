"""The code of the guide runs as it is written, with fewer steps."""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "action_matching.md"


def test_code_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 2
    names: dict = {}
    for block in blocks:
        exec(re.sub(r"steps=\d+", "steps=5", block), names)
    assert names["paths"].x.shape == (11, 500, 2)
