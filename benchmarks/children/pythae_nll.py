"""Pythae's `get_nll` (importance sampling), at the batch size at which it is fastest."""

from __future__ import annotations

import sys
import time
from typing import Any

from pythae_model import build
from serve import Block, serve


def make(request: dict[str, Any]) -> tuple[Block, dict[str, Any]]:
    """One call runs `request["images"]` images with `request["samples"]` samples each."""
    model, data, about = build(request)
    import torch

    model.eval()
    data, samples = data[: request["images"]], request["samples"]

    def nll(batch: int, images: int | None = None) -> None:
        # Its users may leave no_grad out; it is the peer's better time.
        with torch.no_grad():
            model.get_nll(data[:images], n_samples=samples, batch_size=batch)
            if request["device"] == "cuda":
                torch.cuda.synchronize()

    # Only divisors: it rounds the number of samples down to whole batches, silently.
    best, least = samples, float("inf")
    for batch in (b for b in (samples, samples // 2, samples // 5, samples // 10) if b and samples % b == 0):
        nll(batch, 1)
        start = time.perf_counter()
        nll(batch, 1)
        if (taken := time.perf_counter() - start) < least:
            best, least = batch, taken

    def block(calls: int) -> None:
        for _ in range(calls):
            nll(best)

    return block, {**about, "batch_size": best}


if __name__ == "__main__":
    sys.exit(serve(make))
