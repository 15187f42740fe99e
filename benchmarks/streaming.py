"""An epoch of data read while training, against the same data in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from nets import Net
from settings import Settings
from timing import Here, Row, Timed, interleaved, rows
from torch import Tensor

import pyrovae as pv

MEMORY, MAPPED = "in memory", "memory-mapped .npy, float32"
BYTES, WORKER = "memory-mapped .npy, bytes", "torch Dataset, one worker"


class Rows(torch.utils.data.Dataset[Tensor]):
    """One row at a time, as a user's Dataset gives them."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return self.x[index]


def bench_streaming(net: Net, settings: Settings, size: int = 60_000) -> list[Row]:
    """Steps alone, without metrics; the order, and every number, is the same in all rows."""
    x = net.data(torch.device("cpu"), size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "real.npy", x.numpy())
        np.save(folder / "bytes.npy", x.to(torch.uint8).numpy())
        sources = {
            MEMORY: x.to(settings.device),
            MAPPED: pv.data.Stream(folder / "real.npy", device=settings.device),
            BYTES: pv.data.Stream(folder / "bytes.npy", device=settings.device),
            WORKER: pv.data.Stream(Rows(x), workers=1, device=settings.device),
        }
        runs: dict[str, Timed] = {}
        for what, source in sources.items():
            vae = net.vae(settings.device)
            trainer = pv.Trainer(vae.model, vae.guide, source, batch_size=net.batch, lr=1e-3, compile=True)
            runs[what] = Here(trainer.run_steps, settings.device)
        times = interleaved(runs, min(settings.repeats, 7), 1, warm_up=1)
    return rows(f"streamed epoch, {size:,} x {net.name}", runs, times, MEMORY)
