"""What is minimised: an objective turns a batch of samples into a loss and named terms."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from sciflow.shapes import Float


class Loss(NamedTuple):
    """What an objective returns for one batch.

    Attributes:
        value: the scalar to minimise, a mean over the batch; shape ().
        metrics: named detached scalars to log. A loss that is not finite is explained by the
            metrics that are not finite either, so the terms of the loss belong here.
    """

    value: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = MappingProxyType({})


@runtime_checkable
class Objective(Protocol):
    """An ``nn.Module`` whose ``forward(batch)`` returns a `Loss`.

    Two attributes are optional. ``model``: the module that a fit returns and averages, the whole
    objective where there is none. ``generator``: a slot (``None`` before the fit) that holds,
    during the fit, the `torch.Generator` of every random number the objective draws itself; its
    state is in the checkpoint. The global random state is neither read nor set.
    """

    def __call__(self, batch: Any) -> Loss:
        """The loss of ``batch``, sample axis first in each of its tensors."""
        ...


def model_of(objective: nn.Module) -> nn.Module:
    """The module that the fit of ``objective`` returns: its ``model`` or itself."""
    model = getattr(objective, "model", None)
    return model if isinstance(model, nn.Module) else objective


def check_loss(loss: Any, objective: nn.Module) -> Loss:
    """Refuse what is not a `Loss` to be minimised, saying what came.

    Raises:
        TypeError: ``loss`` is not a `Loss`, or its value is no scalar that depends on parameters.
        ValueError: a metric has a name that the trainer uses, or more than one element.
    """
    name = type(objective).__name__
    if not isinstance(loss, Loss):
        raise TypeError(f"{name} must return a Loss(value, metrics), got {type(loss).__name__}")
    if loss.value.shape != ():
        raise TypeError(f"the loss of {name} must be a scalar, got {tuple(loss.value.shape)}")
    if not loss.value.requires_grad:
        raise TypeError(f"the loss of {name} depends on no parameter: is it detached?")
    for key, value in loss.metrics.items():
        if key in ("loss", "step") or key.startswith("eval/"):
            raise ValueError(f"{name}: the metric name {key!r} is taken by the trainer")
        if value.numel() != 1:
            raise ValueError(f"{name}: metric {key!r} must be a scalar, got {tuple(value.shape)}")
    return loss
