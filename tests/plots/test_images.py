"""Images in rows and columns."""

import pytest
import torch
from matplotlib.figure import Figure

from sciflow import plots


def test_image_grid(unchecked):
    ax = Figure().subplots()
    images = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert plots.image_grid(images, ax, rows=["a", "b"], columns=list("xyz")) is ax
    drawn = ax.get_images()[0].get_array()
    assert drawn.shape == (2 * 6, 3 * 7)
    assert drawn[7:11, 15:20].tolist() == images[1, 2].tolist()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    # the names stand at the middles of the images
    assert ax.get_yticks().tolist() == [2.5, 8.5]
    assert ax.get_xticks().tolist() == [3.0, 10.0, 17.0]
    with pytest.raises(ValueError, match="columns has 2 names; expected 3"):
        plots.image_grid(images, ax, columns=["x", "y"])
