"""Images from pixels to modes and back: likelihoods in bits, and the class from slow modes."""

import importlib.util
import logging
import sys
from pathlib import Path

import pytest
import torch

from sciflow import nct
from sciflow.data import Dequantiser, bits_per_dim

log = logging.getLogger(__name__)


def blobs(n, generator):
    """Images (n, 6, 6) of 16 greys, with a blob in one of three places, and the places."""
    labels = torch.randint(3, (n,), generator=generator)
    centers = torch.tensor([[1.0, 1.0], [1.0, 4.0], [4.0, 2.5]])[labels]
    centers = centers + 0.3 * torch.randn(n, 2, generator=generator)
    place = torch.cartesian_prod(torch.arange(6.0), torch.arange(6.0)).reshape(6, 6, 2)
    distance = (place - centers[:, None, None]).square().sum(-1)
    bright = 12 * torch.exp(-distance / 2) + 1.5 * torch.rand(n, 6, 6, generator=generator)
    return bright.round().clamp(0, 15).to(torch.uint8), labels


def nearest_centroid(train, labels, images):
    centroids = torch.stack([train[labels == c].double().mean(0) for c in range(3)]).flatten(1)
    return torch.cdist(images.flatten(1).double(), centroids).argmin(1)


@pytest.mark.parametrize("alpha", [1e-4, None])
def test_bits_of_a_gaussian(generator, alpha):
    """The linear map is a Gaussian of the training images: its bits from torch's own density."""
    images, _ = blobs(1500, generator)
    dequantise = Dequantiser(16, alpha)
    train, test = dequantise(images[:1000], generator), dequantise(images[1000:], generator)
    model = nct.fit_samples(train.y, steps=0, progress=False)
    covariance = torch.cov(train.y.T, correction=0)
    gaussian = torch.distributions.MultivariateNormal(train.y.mean(0), covariance)
    expected = bits_per_dim(gaussian.log_prob(test.y), test)
    torch.testing.assert_close(bits_per_dim(model.log_prob(test.y), test), expected)


def test_slow_modes_keep_the_class(generator):
    images, labels = blobs(2000, generator)
    dequantise = Dequantiser(16, 1e-4)
    train, test = dequantise(images[:1500], generator), dequantise(images[1500:], generator)
    options = {"coupling": "affine", "width": 32, "bins": 4, "progress": False, "device": "cpu"}
    linear = nct.fit_samples(train.y, steps=0, progress=False)
    model = nct.fit_samples(train.y, steps=100, lr=3e-3, batch_size=128, **options)
    gain = bits_per_dim(linear.log_prob(test.y), test) - bits_per_dim(model.log_prob(test.y), test)
    error = float(gain.std()) / len(gain) ** 0.5
    log.info("gain over a Gaussian %.4f +- %.4f bits per pixel", float(gain.mean()), error)
    assert float(gain.mean()) > 5 * error

    def share(k):
        rebuilt = dequantise.images(nct.compress(model, test.y, k))
        found = nearest_centroid(images[:1500], labels[:1500], rebuilt.reshape(-1, 6, 6))
        return float((found == labels[1500:]).double().mean())

    assert torch.equal(
        dequantise.images(nct.compress(model, test.y, 36)), images[1500:].flatten(1)
    )
    full = share(36)
    log.info("shares named rightly: %s of %.3f", [share(k) for k in (0, 2, 4)], full)
    assert full > 0.95 and share(0) < 0.5 and share(4) > 0.95 * full


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_digits(data_dir, tmp_path):
    """The study of examples/mnist_modes.py: bits per pixel, and the class from 35 of 784 modes."""
    file = Path(__file__).parents[2] / "examples" / "mnist_modes.py"
    spec = importlib.util.spec_from_file_location("mnist_modes", file)
    example = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = example
    spec.loader.exec_module(example)
    torch.set_default_dtype(torch.float32)  # as where a user runs it
    study = example.Study(out=tmp_path)
    scores = example.main(study)
    log.info("\n%s", scores.table())
    assert scores.full > 0.94
    for name, row in scores.accuracy.items():
        assert row[study.kept.index(35)] >= 0.9 * scores.full, name
        if "drawn" not in name:
            assert row[study.kept.index(784)] == scores.full
    flow, gaussian = scores.bits["transformation"], scores.bits["Gaussian of logits"]
    assert flow[0] + 5 * flow[1] < gaussian[0] - 5 * gaussian[1]
