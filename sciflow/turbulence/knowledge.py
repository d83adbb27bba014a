"""What is known of a start: from a run, and checked and turned into numbers for the encoders."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch

from sciflow.errors import DataError
from sciflow.shapes import Float, Tensor
from sciflow.turbulence.features import (
    ENCODERS,
    complete_spectrum,
    history_window,
    of_history,
    of_skewness,
    of_spectrum,
    surroundings,
)
from sciflow.turbulence.runs import DecayRun

# Relative difference of the integral of a spectrum and k_0 that is refused.
_SPECTRUM = 0.15


def knowledge(run: DecayRun, i: int, name: str) -> dict[str, Any] | None:
    """Arguments of `Forecaster.forecast` at row ``i`` for an encoder; None where they lack."""
    out: dict[str, Any] = {"encoder": name, "box": run.box, "k_max": run.k_max}
    if name in ("skewness", "both"):
        if run.skewness is None or run.palinstrophy is None:
            return None
        out |= {"skewness": run.skewness[i], "palinstrophy": run.palinstrophy[i]}
    if name in ("spectrum", "both"):
        if run.spectrum is None:
            return None
        out["spectrum"] = (run.kappa, run.spectrum[i])
    if name == "history":
        if float(run.tau[i]) < 0.1:
            return None
        out["history"] = (run.t[: i + 1], run.k[: i + 1], run.eps[: i + 1])
    return out


def numbers(**values: Any) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Positive numbers of one shape (B,), and whether all of them came as one number."""
    tensors = {name: torch.as_tensor(x, dtype=torch.float64) for name, x in values.items()}
    single = all(x.ndim == 0 for x in tensors.values())
    for name, x in tensors.items():
        if x.ndim > 1 or not torch.isfinite(x).all() or not (x > 0).all():
            raise ValueError(f"{name} must be positive, one number or (B,); got {values[name]}")
    sizes = {len(x) for x in tensors.values() if x.ndim}
    if len(sizes) > 1:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
        raise ValueError(f"k0, eps0 and nu must agree in number; got {shapes}")
    B = sizes.pop() if sizes else 1
    a, b, c = (x.expand(B) for x in tensors.values())
    return a, b, c, single


def optional(name: str, value: Any, B: int) -> Tensor | None:
    """A positive number or (B,) of them, as (B,); None stays None."""
    if value is None:
        return None
    x = torch.as_tensor(value, dtype=torch.float64)
    if x.shape not in ((), (B,)) or not torch.isfinite(x).all() or not (x > 0).all():
        raise ValueError(f"{name} must be positive, one number or ({B},); got {value}")
    return x.expand(B)


def given_encoders(skewness: Any, palinstrophy: Any, spectrum: Any, history: Any) -> list[str]:
    """The encoders that can be served, the most telling last."""
    if (skewness is None) != (palinstrophy is None):
        raise ValueError("skewness and palinstrophy belong together: give both or neither")
    names = ["bare"]
    if history is not None:
        names.append("history")
    if skewness is not None:
        names.append("skewness")
    if spectrum is not None:
        names.append("spectrum")
    if skewness is not None and spectrum is not None:
        names.append("both")
    return names


class Seen(NamedTuple):
    """What the networks see of B starts: `surroundings`, and the numbers of one encoder."""

    encoder: str
    around: Float[Tensor, "batch 3"]
    numbers: Float[Tensor, "batch n"]


def seen(
    k: Float[Tensor, " batch"],
    eps: Float[Tensor, " batch"],
    nu: Float[Tensor, " batch"],
    skewness: Any = None,
    palinstrophy: Any = None,
    spectrum: Any = None,
    history: Any = None,
    box: Any = None,
    k_max: Any = None,
    encoder: str | None = None,
) -> Seen:
    """Check what is known of B starts, and turn it into numbers; see `Forecaster.forecast`."""
    given = given_encoders(skewness, palinstrophy, spectrum, history)
    name = given[-1] if encoder is None else encoder
    if name not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}; got {name!r}")
    if name not in given:
        raise ValueError(
            f"the encoder {name!r} needs what was not given; there is {', '.join(given)}"
        )
    B = len(k)
    side, cut = optional("box", box, B), optional("k_max", k_max, B)
    parts = [k.new_zeros(B, 0)]
    if name in ("skewness", "both"):
        S = torch.as_tensor(skewness, dtype=torch.float64).expand(B)
        if not torch.isfinite(S).all() or float(S.abs().max()) > 3:
            raise ValueError(f"skewness must be a number of order .5; got {skewness}")
        P = optional("palinstrophy", palinstrophy, B)
        parts.append(of_skewness(k, eps, nu, S, cast(Tensor, P)))
    if name in ("spectrum", "both"):
        parts.append(_known_spectrum(k, eps, nu, spectrum, k_max))
    if name == "history":
        parts.append(_known_history(k, eps, history))
    return Seen(name, surroundings(k, eps, nu, side, cut), torch.cat(parts, 1))


def _known_spectrum(k: Tensor, eps: Tensor, nu: Tensor, spectrum: Any, k_max: Any) -> Tensor:
    kappa, E = (torch.as_tensor(x, dtype=torch.float64) for x in spectrum)
    if kappa.ndim != 1 or len(kappa) < 5 or E.shape not in (kappa.shape, (len(k), len(kappa))):
        raise ValueError(
            f"spectrum must be (kappa, E) of shapes (S,) and (S,) or ({len(k)}, S), S at least 5; "
            f"got {tuple(kappa.shape)} and {tuple(E.shape)}"
        )
    if not torch.isfinite(E).all() or (E < 0).any():
        raise ValueError("spectrum: E must be finite and not negative")
    if not (kappa > 0).all() or not (kappa.diff() > 0).all():
        raise ValueError("spectrum: kappa must be positive and increase")
    E = E.expand(len(k), -1)
    total = torch.trapezoid(E, kappa)
    off = float((total / k - 1).abs().max())
    if off > _SPECTRUM:
        raise DataError(
            f"spectrum: the integral of E differs from k0 by {off:.0%}; are they in the same "
            "units, and E per wavenumber?"
        )
    if k_max is None:
        kappa, E = complete_spectrum(kappa, E, eps, nu)
    return of_spectrum(k, eps, nu, kappa, E)


def _known_history(k: Tensor, eps: Tensor, history: Any) -> Tensor:
    if len(k) != 1:
        raise ValueError(f"history is for one decay at a time; k0 has {len(k)}")
    times, energy, loss = history
    run = DecayRun(t=times, k=energy, eps=loss, nu=1.0, name="history", balance=0.0)
    if abs(float(run.k[-1] / k[0]) - 1) > 0.01 or abs(float(run.eps[-1] / eps[0]) - 1) > 0.01:
        raise ValueError("history must end at the start: its last k and eps are not k0 and eps0")
    length = float(run.tau[-1])
    if length < 0.05:
        raise ValueError(f"history must span a fall of ln k of .05 or more; got {length:.3g}")
    a, b = history_window(run.k, run.eps, len(run.t) - 1, min(length, 1.2))
    return of_history(a[None], b[None])
