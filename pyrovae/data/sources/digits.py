"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries."""

import numpy as np
import torch

from ..raw import Raw, Request
from ..splitting import split_rows

LEVELS = 17
VALID, TEST = 180, 360


def load_digits(request: Request) -> Raw:
    """Optical recognition of handwritten digits: grey levels 0 ... 16 `[N, 64]`, with labels.

    All images are shuffled with the seed; 180 are for validation and 360 for testing unless asked otherwise.
    Source: Alpaydin and Kaynak (1998), https://doi.org/10.24432/C50P49.
    """
    from sklearn.datasets import load_digits as embedded  # takes a second to import

    pixels, classes = embedded(return_X_y=True)
    x = torch.from_numpy(np.asarray(pixels, dtype=np.float32))
    y = torch.from_numpy(np.asarray(classes, dtype=np.int64))
    sizes = {
        "valid": VALID if request.valid is None else request.valid,
        "test": TEST if request.test is None else request.test,
    }
    rows = split_rows(len(x), sizes, request.seed)
    return Raw(
        "digits",
        splits={split: x[row] for split, row in rows.items()},
        labels={split: y[row] for split, row in rows.items()},
        support="levels",
        levels=LEVELS,
    )
