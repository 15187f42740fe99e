"""Fantasy particles of a trained Boltzmann machine."""

from __future__ import annotations

from pathlib import Path

from pyrovae import plots
from pyrovae.data import Dataset
from pyrovae.models.boltzmann import RBM

from .arrays import write_arrays

SWEEPS = 1000


def draw_fantasies(
    machine: RBM,
    data: Dataset,
    out: Path,
    num: int,
    sweeps: int | None,
    seed: int,
    weights_hash: str,
    format: str = "png",
) -> list[str]:
    """Writes samples.npz (x, and its mean one sweep on) and, of images, a picture; returns the names."""
    x = machine.sample(num, sweeps or SWEEPS, seed=seed)
    mean = machine.likelihood(machine.posterior(x).mean).mean.detach().reshape(x.shape)
    write_arrays(out / "samples.npz", {"x": x, "mean": mean}, weights_hash)
    shape = data.spec.image_shape
    if shape is None:
        return ["samples.npz"]
    low, high = data.grey_scale
    name = f"samples.{format}"
    plots.save(plots.plot_samples(mean[:100], shape, 10, vmin=low, vmax=high), out / name, weights_hash)
    return ["samples.npz", name]
