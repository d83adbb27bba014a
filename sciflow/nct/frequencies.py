"""Angular frequencies as a tensor that also speaks wave numbers."""

from __future__ import annotations

import torch

from sciflow.shapes import Float, Tensor
from sciflow.units import convert


class Frequencies(Tensor):
    """Angular frequencies, shape (n,), ascending; zero for a free rotor.

    An ordinary tensor in all operations, whose results are plain tensors. Models in the units of
    molecular dynamics have them in rad/ps.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    units: str

    @classmethod
    def of(cls, values: Float[Tensor, " dim"], units: str) -> Frequencies:
        """These values, in rad/ps where ``units`` is "md"."""
        out = values.detach().as_subclass(cls)
        out.units = units
        return out

    @property
    def cm1(self) -> Float[Tensor, " dim"]:
        """The same as wave numbers [cm^-1].

        Raises:
            ValueError: the model is in reduced units.
        """
        if self.units != "md":
            raise ValueError(
                "these frequencies are in reduced units; cm^-1 needs a model fitted with "
                "units='md' (nm, ps, dalton, kJ/mol)"
            )
        return convert(self.as_subclass(Tensor), "rad/ps", "cm^-1")
