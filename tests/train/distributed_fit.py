"""Started by the tests as ``python`` and as ``torchrun``: fits, and writes what came out.

python distributed_fit.py FOLDER
torchrun --nproc_per_node=2 distributed_fit.py FOLDER
"""

import sys
from pathlib import Path

import torch
from train_problems import Location, Regression, product_samples

from sciflow.train import Engine, Loss, Samples, Trainer, Walkers

folder = Path(sys.argv[1])
engine = Engine.start("cpu")
quiet = {"progress": False, "device": "cpu", "dtype": "float64"}
found = {"world": engine.world}


class Recorded(Regression):
    """Keeps the weights and the number of rows that its first call saw."""

    start = None

    def forward(self, batch):
        if self.start is None:
            self.start = {name: x.clone() for name, x in self.state_dict().items()}
            self.rows = len(batch[0])
        return super().forward(batch)


# Without a seed of their own the processes would start from different weights.
torch.manual_seed(100 + engine.rank)
objective = Recorded()
objective.model[3] = torch.nn.Linear(16, 1)
trainer = Trainer(steps=1, batch_size=64, lr=1.0, update="sgd", ema=0.0, decay="constant", **quiet)
trainer.fit(objective, product_samples())
# One step of size 1 and no momentum yet: the move is the gradient.
found["gradient"] = {name: objective.start[name] - x for name, x in objective.state_dict().items()}
found["rows"] = objective.rows

trainer = Trainer(
    steps=40, batch_size=64, lr=0.01, eval_every=20, out=folder, checkpoint_every=25, **quiet
)
result = trainer.fit(
    objective, product_samples(), lambda model: model[0].weight.square().sum().item()
)
found["weights"] = dict(result.model.state_dict())
found["loss"] = result.history["loss"]
found["rmse"] = result.history["rmse"]
found["files"] = sorted(path.name for path in folder.iterdir())

trainer = Trainer(steps=2, batch_size=64, lr=1.0, update="lbfgs", ema=0.0, **quiet)
found["lbfgs"] = dict(trainer.fit(Regression().double(), product_samples()).model.state_dict())


class Spread(Location):
    """Reports the mean and the mean square of the walkers it is given."""

    def forward(self, x):
        loss = super().forward(x)
        return Loss(loss.value, {"mean": x.mean(), "square": x.square().mean()})


def walk(x, g):
    return x + torch.randn(x.shape, generator=g, dtype=x.dtype)


def walkers():
    return Walkers(torch.zeros(32, dtype=torch.float64), walk)


moving = Trainer(steps=6, batch_size=64, log_every=1, out=folder / "walkers", **quiet)
found["walkers"] = moving.fit(Spread().double(), walkers()).history["mean"]
draws = engine.generator(0, torch.device("cpu"), *((0, engine.rank) if engine.rank else ()))
found["first draws"] = engine.gather(torch.randn(3, generator=draws))

try:
    Trainer(steps=1, batch_size=7, **quiet).fit(Location().double(), Samples(torch.ones(5)))
    found["uneven"] = ""
except ValueError as error:
    found["uneven"] = str(error)
try:
    Trainer(steps=1, batch_size=7, **quiet).fit(Location().double(), walkers())
    found["uneven walkers"] = ""
except ValueError as error:
    found["uneven walkers"] = str(error)

found["ranks"] = engine.gather({"weights": found["weights"], "walkers": found["walkers"]})
if engine.is_main:
    torch.save(found, folder / "found.pt")
