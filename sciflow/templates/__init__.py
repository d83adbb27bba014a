"""Pages made from templates."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Any


def render(name: str, **values: Any) -> str:
    """Fill the template ``name`` of this folder with ``values``, escaped as HTML.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not given.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = format_number
    source = files(__name__).joinpath(name).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)


def format_number(value: float, resolution: float = 0.0) -> str:
    """Write a number with the digits that ``resolution``, an error or tolerance, leaves meaning.

    Two digits of the resolution are shown; without a resolution six significant digits are.
    """
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        text = f"{value:.4g}"
    elif resolution > 0:
        decimals = 1 - math.floor(math.log10(resolution))
        text = f"{value:.{min(max(decimals, 0), 8)}f}"
    else:
        text = f"{value:.6g}"
    return text.replace("-", "\N{MINUS SIGN}")
