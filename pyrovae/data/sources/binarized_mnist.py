"""The fixed binarisation of MNIST by which density models are compared."""

from typing import Any

import numpy as np
import torch

from ..files import read_file
from ..raw import Raw, Request
from ..roots import data_root

FILE = "BinarizedMNIST/binarized_mnist_packed.npz"
SPLITS = ("train", "valid", "test")
PACKED = 98  # bytes of 784 bits


def load_binarized_mnist(request: Request) -> Raw:
    """Binary digits `[N, 784]` in the splits of the literature (50,000, 10,000 and 10,000), without labels.

    The test set is sorted by class: shuffle it before a part is taken. Source: Larochelle and Murray (2011),
    https://proceedings.mlr.press/v15/larochelle11a.html.

    Raises:
        FileNotFoundError: If the packed file is not under the data root.
        ValueError: If it is corrupt, or sizes of splits were asked for.
    """
    request.refuse_sizes("binarized-mnist", *SPLITS[1:])
    path = data_root(request.root) / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"expected the fixed binarisation of MNIST at {path} (uint8 arrays train, valid and test "
            "[N, 98], packed by np.packbits(bits, axis=1)), found none; it is not downloaded: put it there, "
            "or name another folder by root= or the environment variable PYROVAE_DATA"
        )
    packed: Any = read_file(path)
    shapes = {key: (x.dtype.name, x.shape[1:]) for key, x in packed.items()}
    if shapes != dict.fromkeys(SPLITS, ("uint8", (PACKED,))):
        raise ValueError(
            f"expected uint8 arrays [N, {PACKED}] named {', '.join(SPLITS)} in {path}, got {shapes}"
        )
    splits = {s: torch.from_numpy(np.unpackbits(packed[s], axis=1)).to(torch.float32) for s in SPLITS}
    return Raw("binarized-mnist", splits, support="binary", binarisation="fixed")
