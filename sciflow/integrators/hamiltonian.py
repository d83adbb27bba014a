"""Steps that know the Hamiltonian: symplectic, Langevin, and hybrid Monte Carlo."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sciflow.integrators.brownian import Noise
from sciflow.integrators.compiled import compiled_splitting, march_in_chunks
from sciflow.integrators.fields import Hamiltonian
from sciflow.integrators.gradients import march_checkpointed
from sciflow.integrators.ode import After, Move, Progress, Stepper, march
from sciflow.integrators.outcome import finish
from sciflow.integrators.reversible import march_reversibly
from sciflow.integrators.rungekutta import Step, Time, value_of, widen
from sciflow.integrators.solution import Solution
from sciflow.integrators.splitting import SPLITTINGS, Splitting, kick, moved
from sciflow.integrators.state import Structure
from sciflow.shapes import Tensor

# Parts of dt by which times are told apart where they count the noise.
FINE = 2**24

HAMILTONIAN_METHODS = (*SPLITTINGS, "baoab", "hmc")


class SplittingStepper:
    """Kicks and drifts in turn; the last force of a step is the first of the next."""

    def __init__(self, field: Hamiltonian, splitting: Splitting) -> None:
        self.field, self.splitting = field, splitting

    def __call__(
        self,
        t: Time,
        h: Time,
        y: list[Tensor],
        carry: list[Tensor] | None,
        alive: Tensor | None = None,
    ) -> Step:
        """Take one step, in the form of all steppers."""
        q, p = y
        field, (_, kicks, drifts) = self.field, self.splitting
        force = carry[0] if carry else field.force(q)
        for b, a in zip(kicks, drifts, strict=False):
            p = kick(p, force, b * h)
            q = moved(q, p, a * h, field.mass)
            force = field.force(q)
        p = kick(p, force, kicks[-1] * h)
        return Step(t, h, y, [q, p], [], [force])


class BAOABStepper:
    """Langevin dynamics by kick, drift, exact friction and noise, drift, kick.

    Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34 (2013): for a harmonic potential
    the distribution of q has no error at any stable step.
    """

    def __init__(self, field: Hamiltonian, dt: float, start: float, seed: int) -> None:
        self.field, self.dt, self.start, self.seed = field, dt, start, seed
        self._noise: Noise | None = None

    def __call__(
        self,
        t: Time,
        h: Time,
        y: list[Tensor],
        carry: list[Tensor] | None,
        alive: Tensor | None = None,
    ) -> Step:
        """Take one step, in the form of all steppers."""
        q, p = y
        field, size = self.field, value_of(h)
        force = carry[0] if carry else field.force(q)
        p = kick(p, force, 0.5 * h)
        q = moved(q, p, 0.5 * h, field.mass)
        p = self._bath(p, value_of(t), size)
        q = moved(q, p, 0.5 * h, field.mass)
        force = field.force(q)
        p = kick(p, force, 0.5 * h)
        return Step(t, h, y, [q, p], [], [force])

    def _bath(self, p: Tensor, t: float, h: float) -> Tensor:
        """The Ornstein-Uhlenbeck process of the momenta, exactly."""
        if self._noise is None:
            self._noise = Noise(self.seed, 0, p)
        # The counter is the time itself, in units that are fine against the shortest step and
        # coarse against rounding: the noise of a step does not depend on the output times.
        counter = round((t - self.start) / self.dt * FINE)
        keep = math.exp(-self.field.friction * h)
        spread = math.sqrt(self.field.kT * -math.expm1(-2 * self.field.friction * h))
        normal = self._noise.normal(counter, p.shape)
        mass = self.field.mass
        if isinstance(mass, Tensor):
            return keep * p + (spread * mass.to(p).sqrt()) * normal
        return torch.add(keep * p, normal, alpha=spread * math.sqrt(mass))


def equal_plan(t: list[Time], dt: float | None) -> list[Move]:
    """Steps of exactly one size between two outputs, so that every step can be undone."""
    plan: list[Move] = []
    for start, end in zip(t[:-1], t[1:], strict=True):
        span = value_of(end) - value_of(start)
        n = 1 if dt is None else max(1, math.ceil(abs(span) / dt * (1 - 1e-12)))
        h = (end - start) / n
        plan += [Move(start + j * h, h) for j in range(n)]
        plan[-1] = plan[-1]._replace(outputs=(1.0,))
    return plan


def solve_hamiltonian(
    field: Hamiltonian,
    leaves: list[Tensor],
    structure: Structure,
    t: Tensor,
    times: list[Time],
    method: str,
    dt: float | None,
    grad: str,
    throw: bool,
    seed: int,
    after: After | None = None,
    compile: bool = False,
) -> Solution:
    """Solve by one of ``HAMILTONIAN_METHODS``; the arguments are checked."""
    plan = equal_plan(times, dt)
    acceptance = None
    if method == "hmc":
        done, acceptance = _hybrid(field, leaves, plan, seed, grad)
        evaluations = 1 + len(plan)
    elif method == "baoab":
        start = value_of(times[0])
        largest = max(abs(value_of(move.h)) for move in plan)
        unit = dt or largest
        shortest = min(abs(value_of(move.h)) for move in plan)
        if shortest * FINE < 2 * unit:
            raise ValueError(
                f"'baoab' tells times apart by 2**-23 of its step {unit:g}; got outputs "
                f"{shortest:g} apart"
            )
        step = BAOABStepper(field, unit, start, seed)
        done = _run(step, leaves, plan, grad, after)
        evaluations = 1 + len(plan)
    else:
        splitting = SPLITTINGS[method]
        if grad == "adjoint":
            done = march_reversibly(field, splitting, leaves, plan)
        elif compile:
            chunk, size = compiled_splitting(field, splitting, leaves)
            single, force = SplittingStepper(field, splitting), [field.force(leaves[0])]
            done = march_in_chunks(chunk, size, single, leaves, force, plan, to_the_end=True)
        else:
            done = _run(SplittingStepper(field, splitting), leaves, plan, grad, after)
        evaluations = 1 + len(splitting.drifts) * len(plan)
    done.outputs.insert(0, leaves)
    return finish(
        done, t, structure, done.extra + evaluations, len(plan), 0, throw, acceptance=acceptance
    )


def _run(
    step: Stepper, y0: list[Tensor], plan: list[Move], grad: str, after: After | None
) -> Progress:
    if grad == "checkpoint":
        return march_checkpointed(step, None, y0, plan)
    return march(step, None, y0, plan, after=after)


@dataclass
class _Chain:
    """Where a Markov chain is, and how often it moved."""

    q: Tensor
    p: Tensor
    force: list[Tensor] | None
    accepted: Tensor | float = 0.0


def _hybrid(
    field: Hamiltonian, y0: list[Tensor], plan: list[Move], seed: int, grad: str
) -> tuple[Progress, Tensor]:
    """Hybrid Monte Carlo: a transition per output.

    Fresh momenta, a leapfrog trajectory, and Metropolis's question whether to keep its end; every
    sample is a chain of its own (Duane, Kennedy, Pendleton and Roweth, Phys. Lett. B 195, 216
    (1987)). A trajectory that leaves the reals is refused like any other of infinite energy.
    """
    step = SplittingStepper(field, SPLITTINGS["leapfrog"])
    momenta, coins = Noise(seed, 0, y0[0]), Noise(seed, 1, y0[0])
    root = torch.as_tensor(field.mass, dtype=y0[0].dtype, device=y0[0].device).sqrt()
    chain, done = _Chain(y0[0], y0[1], None), Progress(outputs=[], steps=len(plan))
    ends = [i + 1 for i, move in enumerate(plan) if move.outputs]
    for i, (first, last) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        p = root * math.sqrt(field.kT) * momenta.normal(i, chain.q.shape)
        run = march_checkpointed if grad == "checkpoint" else march
        if chain.force is None:
            chain.force = [field.force(chain.q)]
        end = run(step, None, [chain.q, p], plan[first:last], k0=chain.force)
        with torch.no_grad():
            rise = field.energy(*end.end) - field.energy(chain.q, p)
            accept = coins.uniform(i, rise.shape).log() < -rise / field.kT  # not so for NaN
        wide = widen(accept, chain.q.ndim)
        assert end.k_end is not None
        chain = _Chain(
            torch.where(wide, end.end[0], chain.q),
            torch.where(wide, end.end[1], p),
            [torch.where(wide, end.k_end[0], chain.force[0])],
            chain.accepted + accept.double(),
        )
        done.outputs.append([chain.q, chain.p])
    done.end = done.outputs[-1]
    return done, torch.as_tensor(chain.accepted) / len(ends)
