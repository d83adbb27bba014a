"""Shapes in signatures: ``Float[Tensor, "batch dim"]``.

The tests check them at run time (jaxtyping with beartype); without jaxtyping installed the
annotations are plain ``Tensor``, so that it is no dependency of the package.
"""

from __future__ import annotations

from torch import Tensor

try:
    from jaxtyping import Bool, Complex, Float, Int, Shaped
except ImportError:

    class _Unchecked:
        """Stands in for a jaxtyping dtype: ``Float[Tensor, "batch dim"]`` is ``Tensor``."""

        def __class_getitem__(cls, item: tuple[type, str]) -> type:
            return item[0]

    Bool = Complex = Float = Int = Shaped = _Unchecked  # type: ignore[assignment]

__all__ = ["Bool", "Complex", "Float", "Int", "Shaped", "Tensor"]
