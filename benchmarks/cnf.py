"""Continuous normalizing flows on planar densities of known entropy, beside a spline flow.

The toys are scored on fresh samples by an independent solve in float64 (dopri8 at 1e-7), as the
mean of log p(exact) - log p(model): nats above the entropy. Times are CPU seconds of one thread.
The settings are one and the same for all six; the spline flow (zuko NSF, 16 bins) has the same
data and the CPU time that the flow took. ``python -m benchmarks.cnf PART`` runs one part:
toys, step or start.
"""

import copy
import json
import math
import sys
import time

import torch
import zuko
from torchdiffeq import odeint_adjoint

from benchmarks.harness import RESULTS, conditions, document, race, show, write
from sciflow import Trainer, cnf
from sciflow.cnf.march import knots, march
from sciflow.systems import TOYS
from sciflow.train import StopTraining

N_DATA, N_SCORE = 100_000, 20_000
SETTINGS = {
    "width": 64,
    "depth": 3,
    "residual": True,
    "plane_waves": 32,
    "wavelength": 2.0,
    "matching_steps": 10_000,
    "likelihood_steps": 700,
    "progress": False,
    "device": "cpu",
}


def data(name, seed):
    return TOYS[name].sample(N_DATA, torch.Generator().manual_seed(100 + seed))


def above_entropy(name, log_prob, seed):
    """Nats above the entropy on fresh samples, and the standard error."""
    toy = TOYS[name]
    x = toy.sample(N_SCORE, torch.Generator().manual_seed(10_000 + seed))
    with torch.no_grad():
        gap = toy.log_prob(x) - torch.cat([log_prob(part) for part in x.split(2500)])
    return float(gap.mean()), float(gap.std()) / math.sqrt(len(gap))


def tight(flow):
    return copy.deepcopy(flow).double().with_solver("dopri8", 1e-7, 1e-7).log_prob


def toy(name, seed):
    """The flow on one data set and seed."""
    x = data(name, seed)
    start = time.process_time()
    flow = cnf.fit_samples(x, seed=seed, **SETTINGS)
    seconds = time.process_time() - start
    nats, error = above_entropy(name, tight(flow), seed)
    return {"cpu_s": seconds, "nats": nats, "error": error}


def spline(name, seed, seconds):
    """The spline flow on one data set and seed for a given CPU time."""
    log_prob, steps = train_spline(data(name, seed).float(), seconds, seed)
    nats, error = above_entropy(name, log_prob, seed)
    return {"cpu_s": seconds, "nats": nats, "error": error, "steps": steps}


def train_spline(x, seconds, seed):
    """Neural spline flow of 16 bins by maximum likelihood, Adam with a cosine in the time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = zuko.flows.NSF(2, bins=16)
    mean, scale = x.mean(0), x.std(0)
    y = (x - mean) / scale
    generator = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    begin, steps, spent = time.process_time(), 0, 0.0
    while spent < 1:
        for group in adam.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * spent))
        batch = y[torch.randint(len(y), (512,), generator=generator)]
        loss = -model().log_prob(batch).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        steps, spent = steps + 1, (time.process_time() - begin) / seconds
    model = model.double()
    shift = scale.double().log().sum()
    return lambda part: model().log_prob((part - mean) / scale) - shift, steps


def toys(seeds=(0, 1, 2), spline_seeds=(0,)):
    """All toys and seeds; what is done is kept in a file, so that a later call goes on."""
    path = RESULTS / "cnf-toys.json"
    done = json.loads(path.read_text()) if path.exists() else {}

    def add(key, row):
        done[key] = row
        path.write_text(json.dumps(done, indent=1) + "\n")
        print(key, row, flush=True)

    # The first seed of all sets with the spline flow beside it, then the other seeds.
    for seed in seeds:
        for name in TOYS:
            if f"{name} flow {seed}" not in done:
                add(f"{name} flow {seed}", toy(name, seed))
            if seed in spline_seeds and f"{name} spline {seed}" not in done:
                seconds = done[f"{name} flow {seed}"]["cpu_s"]
                add(f"{name} spline {seed}", spline(name, seed, seconds))
    return done


def toy_table(done):
    table = {}
    for name, density in TOYS.items():
        flows, splines = (
            [row for key, row in done.items() if key.startswith(f"{name} {kind}")]
            for kind in ("flow", "spline")
        )
        if not flows:
            continue
        table[name] = {
            "entropy": density.entropy(),
            "flow": " / ".join(f"{row['nats']:.3f}" for row in flows),
            "spline": " / ".join(f"{row['nats']:.3f}" for row in splines),
            "standard error": max(row["error"] for row in flows),
            "cpu_s": max(row["cpu_s"] for row in flows),
        }
    return table


# --- against FFJORD's recipe -----------------------------------------------------------------


class ConcatSquash(torch.nn.Module):
    """FFJORD's layer: (W x + b) sigmoid(u t + c) + v t."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.layer = torch.nn.Linear(n_in, n_out)
        self.gate, self.bias = torch.nn.Linear(1, n_out), torch.nn.Linear(1, n_out, bias=False)

    def forward(self, t, x):
        t = t.reshape(1, 1)
        return self.layer(x) * torch.sigmoid(self.gate(t)) + self.bias(t)


class FFJORDNet(torch.nn.Module):
    """FFJORD's network for the toys: three hidden layers of 64, tanh."""

    dim = 2

    def __init__(self):
        super().__init__()
        sizes = [2, 64, 64, 64, 2]
        layers = [ConcatSquash(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, t, x):
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(t, x))
        return self.layers[-1](t, x)


class BruteTrace(torch.nn.Module):
    """Field and trace by one backward pass per dimension, as FFJORD's divergence_bf."""

    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, t, state):
        with torch.enable_grad():
            x = state[0].requires_grad_(True)
            v = self.field(t, x)
            trace = sum(
                torch.autograd.grad(v[:, i].sum(), x, create_graph=True)[0][:, i]
                for i in range(x.shape[1])
            )
        return v, -trace


def ffjord_nll(module, flow, x, tolerance=1e-5):
    """Negative log-likelihood by torchdiffeq's adjoint, from data back to base."""
    y = flow.to_unit(x)
    t = torch.tensor([1.0, 0.0], dtype=y.dtype)
    z, change = odeint_adjoint(
        module, (y, y.new_zeros(len(y))), t, rtol=tolerance, atol=tolerance, method="dopri5",
        adjoint_params=tuple(flow.field.parameters()),
    )  # fmt: skip
    log_p = flow.base.log_prob(z[-1]) - change[-1] - flow.scale.log().sum()
    return -log_p.mean()


def flow_of(field, x):
    return cnf.ContinuousFlow(field, shift=x.double().mean(0), scale=x.double().std(0))


def training_step():
    """One step of the likelihood on one network and batch, at equal errors."""
    x = data("8gaussians", 0).float()[:20_000]
    flow = cnf.fit_samples(
        x,
        width=128,
        depth=3,
        matching_steps=1000,
        likelihood_steps=0,
        progress=False,
        device="cpu",
    )
    batch = x[:256]
    parameters = list(flow.field.parameters())
    exact = copy.deepcopy(flow).double().with_solver("dopri8", 1e-10, 1e-10)
    truth = -exact.log_prob(batch.double()).mean()
    gradient = torch.autograd.grad(truth, list(exact.field.parameters()))

    def errors(loss):
        own = torch.autograd.grad(loss, parameters)
        off = sum((a.double() - b).square().sum() for a, b in zip(own, gradient, strict=True))
        size = sum(b.square().sum() for b in gradient)
        return abs(float(loss.detach()) - float(truth.detach())), math.sqrt(float(off / size))

    def ours(n_steps, method):
        way = march(flow.field, flow.to_unit(batch), knots(n_steps)[::-1], method)
        log_p = flow.base.log_prob(way.y) + way.change - flow.scale.log().sum()
        return -log_p.mean() + way.error

    def nll(n_steps, method):
        way = march(flow.field, flow.to_unit(batch), knots(n_steps)[::-1], method)
        return -(flow.base.log_prob(way.y) + way.change - flow.scale.log().sum()).mean()

    class OwnTrace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.field = flow.field

        def forward(self, t, state):
            v, trace = self.field.value_and_divergence(t, state[0])
            return v, -trace

    brute, own_trace = BruteTrace(flow.field), OwnTrace()
    tolerances = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
    table = {}
    for n_steps, method in ((6, "bosh3"), (4, "tsit5")):
        name = f"sciflow {method} n={n_steps}"
        bound = errors(nll(n_steps, method))
        peers = {}
        for kind, module in (("brute trace", brute), ("closed-form trace", own_trace)):
            for tolerance in tolerances:
                got = errors(ffjord_nll(module, flow, batch, tolerance))
                if got[0] <= bound[0] and got[1] <= bound[1]:
                    break
            peers[kind] = (module, tolerance, got)
        competitors = {name: lambda n=n_steps, m=method: ours(n, m).backward()}
        for kind, (module, tolerance, _) in peers.items():
            label = f"torchdiffeq adjoint, {kind}, against {method} n={n_steps}"
            competitors[label] = lambda m=module, tol=tolerance: ffjord_nll(
                m, flow, batch, tol
            ).backward()
        timed = race(competitors, rounds=5)
        for label, row in timed.items():
            table[label] = {k: row[k] for k in ("cpu_ms_min", "ratio")}
        table[name] |= {"loss_error": bound[0], "gradient_error": bound[1]}
        for kind, (_, tolerance, got) in peers.items():
            label = f"torchdiffeq adjoint, {kind}, against {method} n={n_steps}"
            table[label] |= {
                "loss_error": got[0], "gradient_error": got[1], "tolerance": tolerance,
            }  # fmt: skip
    return table


def matching_start(seconds=60.0, seed=0):
    """How soon flow matching reaches the likelihood that FFJORD's recipe has after a minute."""
    name = "8gaussians"
    x = data(name, seed).float()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = FFJORDNet()
    flow = flow_of(net, x)
    module = BruteTrace(net)
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-5)
    generator = torch.Generator().manual_seed(seed)
    begin, steps = time.process_time(), 0
    while time.process_time() - begin < seconds:
        batch = x[torch.randint(len(x), (512,), generator=generator)]
        adam.zero_grad()
        ffjord_nll(module, flow, batch).backward()
        adam.step()
        steps += 1
    reached, _ = above_entropy(name, tight(flow), seed)
    found = {}

    start, own = time.process_time(), 0.0
    settings = cnf.FitOptions(**SETTINGS)
    field = cnf.VelocityMLP(2, 64, 3, residual=True, plane_waves=32)
    mine = flow_of(field, x)
    source = cnf.CoupledPairs(mine, x, n_pairs=20_000, seed=seed)

    def check(model):
        nonlocal own
        now = time.process_time()
        figure, _ = above_entropy(name, tight(model), seed)
        found[now - start - own] = figure
        own += time.process_time() - now
        if figure < reached:
            raise StopTraining("reached")
        return figure

    trainer = Trainer(
        steps=4000, batch_size=settings.matching_batch, lr=settings.matching_lr, eval_every=100,
        progress=False, device="cpu",
    )  # fmt: skip
    trainer.fit(cnf.FlowMatching(mine), source, check)
    when = max(found)
    return {
        "FFJORD's recipe": {"cpu_s": seconds, "nats_above_entropy": reached, "steps": steps},
        "flow matching": {
            "cpu_s": when, "nats_above_entropy": found[when], "ratio": when / seconds,
        },
    }  # fmt: skip


#: part of a run -> its table's title and what makes it
PARTS = {
    "toys": ("nats above the entropy, per seed", lambda: toy_table(toys())),
    "step": ("likelihood step, 128x3, batch 256", training_step),
    "start": ("8gaussians, flow matching against FFJORD's recipe", matching_start),
}


def run(device="cpu", parts=tuple(PARTS)):
    """The parts asked for, beside those that an earlier run has left."""
    if device != "cpu":
        raise ValueError("the toys are timed on the CPU")
    path = RESULTS / "cnf-cpu.json"
    tables = json.loads(path.read_text())["tables"] if path.exists() else {}
    for part in parts:
        title, make = PARTS[part]
        tables[title] = make()
    ordered = {title: tables[title] for title, _ in PARTS.values() if title in tables}
    return {"conditions": conditions(device, "torchdiffeq", "zuko", "pot"), "tables": ordered}


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = run(parts=sys.argv[1:] or tuple(PARTS))
    show("cnf", result)
    write("cnf", "cpu", result)
    document("cnf", "cpu", result)
