"""IDX files written here byte by byte, and the digits where they are at hand."""

import gzip
import struct

import numpy as np
import pytest
import torch

from sciflow.data import mnist, read_idx, read_images
from sciflow.errors import DataError


def idx(code, shape, content):
    """Bytes of an IDX file: two zeros, type, number of axes, big-endian sizes, content."""
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape) + content


PIXELS = bytes(range(24))
IMAGES = idx(0x08, (2, 3, 4), PIXELS)


@pytest.mark.parametrize("compressed", [False, True])
def test_images_and_labels(tmp_path, compressed):
    pack = gzip.compress if compressed else bytes
    (tmp_path / "images").write_bytes(pack(IMAGES))
    (tmp_path / "labels").write_bytes(pack(idx(0x08, (2,), b"\x07\x03")))
    images, labels = read_images(tmp_path / "images", tmp_path / "labels")
    assert images.dtype == torch.uint8
    assert images.tolist() == np.arange(24).reshape(2, 3, 4).tolist()
    assert labels.tolist() == [7, 3]


@pytest.mark.parametrize(
    ("code", "layout", "values"),
    [
        (0x08, "3B", [0, 1, 255]),
        (0x09, "3b", [-128, 0, 127]),
        (0x0B, "3h", [-300, 0, 300]),
        (0x0C, "3i", [-70_000, 0, 70_000]),
        (0x0D, "3f", [-0.5, 0.0, 1.25]),
        (0x0E, "3d", [-0.1, 0.0, 0.1]),
    ],
)
def test_every_type_is_big_endian(tmp_path, code, layout, values):
    (tmp_path / "x").write_bytes(idx(code, (3,), struct.pack(f">{layout}", *values)))
    found = read_idx(tmp_path / "x")
    assert found.tolist() == values and found.dtype.isnative


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with the bytes ; an IDX file"),
        (b"\x89PNG\r\n", "starts with the bytes 89 50 4e 47"),
        (b"\x00\x00\x0a\x01" + b"\0" * 8, "00 00 0a 01"),
        (IMAGES[:9], "cut off in the sizes of its 3 axes"),
        (IMAGES[:-1], r"cut off: shape \(2, 3, 4\) of 1 bytes each takes 40 bytes.* has 39"),
        (IMAGES + b"\0", "longer than it says"),
        (gzip.compress(IMAGES)[:-9], "cut off gzip"),
    ],
    ids=["empty", "PNG", "type", "sizes", "short", "long", "gzip"],
)
def test_bad_files(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "x")


def test_what_does_not_fit(tmp_path, unchecked):
    with pytest.raises(DataError, match="no such file"):
        read_idx(tmp_path / "none")
    (tmp_path / "images").write_bytes(IMAGES)
    (tmp_path / "labels").write_bytes(idx(0x08, (3,), b"\1\2\3"))
    with pytest.raises(DataError, match=r"2 images.* 3 labels"):
        read_images(tmp_path / "images", tmp_path / "labels")
    with pytest.raises(DataError, match=r"expected bytes \(images, height, width\)"):
        read_images(tmp_path / "labels", tmp_path / "images")
    with pytest.raises(DataError, match="expected one whole number"):
        read_images(tmp_path / "images", tmp_path / "images")
    with pytest.raises(ValueError, match="'train' or 'test'"):
        mnist("all")


def test_digits(data_dir):
    images, labels = mnist("test")
    assert images.shape == (10_000, 28, 28) and labels.shape == (10_000,)
    # Counts of the ten digits and the first labels, as published with the test part.
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
