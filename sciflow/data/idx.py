"""IDX files: arrays of bytes or numbers, as MNIST and its relatives are published."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from sciflow.data.registry import path
from sciflow.errors import DataError
from sciflow.shapes import Int, Shaped, Tensor

# Third byte of a file: the type of its numbers, which are big-endian.
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


class LabelledImages(NamedTuple):
    """Grey images with what they show.

    Attributes:
        images: (N, height, width) bytes.
        labels: (N,) classes.
    """

    images: Shaped[Tensor, "n height width"]
    labels: Int[Tensor, " n"]


def mnist(part: Literal["train", "test"] = "test") -> LabelledImages:
    """Handwritten digits, 28 x 28: 60,000 of the training part or 10,000 of the test part.

    Raises:
        DataError: the files are not on this machine and cannot be downloaded.

    Source: LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86, 2278 (1998).
    """
    if part not in ("train", "test"):
        raise ValueError(f"part must be 'train' or 'test'; got {part!r}")
    return read_images(path(f"mnist-{part}-images"), path(f"mnist-{part}-labels"))


def read_images(images: str | Path, labels: str | Path) -> LabelledImages:
    """Images of one IDX file, and their labels of another.

    Raises:
        DataError: one of them is unreadable, holds something else, or has another number.
    """
    pixels, classes = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise DataError(
            f"{images}: holds {pixels.dtype} of shape {pixels.shape}; expected bytes "
            "(images, height, width)"
        )
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise DataError(
            f"{labels}: holds {classes.dtype} of shape {classes.shape}; expected one whole "
            "number for each image"
        )
    if len(pixels) != len(classes):
        raise DataError(f"{images} has {len(pixels)} images, {labels} {len(classes)} labels")
    return LabelledImages(torch.from_numpy(pixels), torch.from_numpy(classes.astype(np.int64)))


def read_idx(file: str | Path) -> np.ndarray:
    """The array of an IDX file, compressed by gzip or not, in the byte order of this machine.

    Raises:
        DataError: there is no such file, or it is no IDX file, cut off, or longer than it says.

    Source: Y. LeCun, "The MNIST database of handwritten digits", file formats.
    """
    file = Path(file)
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    content = file.read_bytes()
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file}: damaged or cut off gzip file ({error})") from error
    magic = content[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise DataError(
            f"{file}: starts with the bytes {magic.hex(' ')}; an IDX file starts with 00 00, a "
            f"type ({', '.join(f'{code:02x}' for code in _TYPES)}) and the number of axes"
        )
    n_axes, kind = magic[3], np.dtype(_TYPES[magic[2]])
    first = 4 + 4 * n_axes
    if len(content) < first:
        raise DataError(f"{file}: cut off in the sizes of its {n_axes} axes")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", n_axes, 4))
    expected = first + math.prod(shape) * kind.itemsize
    if len(content) != expected:
        problem = "cut off" if len(content) < expected else "longer than it says"
        raise DataError(
            f"{file}: {problem}: shape {shape} of {kind.itemsize} bytes each takes {expected} "
            f"bytes, the file has {len(content)}"
        )
    values = np.frombuffer(content, kind, math.prod(shape), first).reshape(shape)
    return values.astype(kind.newbyteorder("="))
