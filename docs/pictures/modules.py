"""The picture of the README, from the figures of a demonstration.

Launch:
    make demo && python docs/pictures/modules.py out
"""

import sys
from pathlib import Path

from matplotlib import image
from matplotlib.figure import Figure

PANELS = {
    "ring": "nct",
    "moons": "cnf",
    "turbulence": "turbulence",
    "superposition": "am",
    "gene-network": "wlf",
    "helium": "wqmc",
}


def main(out: Path) -> None:
    """Put the figures of ``out`` side by side."""
    figure = Figure(figsize=(13, 8.6), layout="constrained")
    for ax, (name, module) in zip(figure.subplots(3, 2).flat, PANELS.items(), strict=True):
        ax.imshow(image.imread(out / "figures" / f"{name}.png"))
        ax.set_title(f"sciflow.{module}", loc="left", fontweight="bold")
        ax.axis("off")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
