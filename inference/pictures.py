"""Pictures of a trained program on its data."""

from __future__ import annotations

from pathlib import Path

from pyrovae import plots
from pyrovae.data import Dataset
from pyrovae.programs import reconstruct, simulate

from .building import Pair

SHOWN = 12  # reconstructions in a picture


def draw_pictures(pair: Pair, data: Dataset, out: Path, *, num_samples: int = 60, seed: int = 0) -> list[str]:
    """Writes samples.png, reconstructions.png (image data) and latent.png; returns the names."""
    written = []
    again = reconstruct(*pair, data.test, seed=seed)
    shape = data.spec.image_shape
    if shape is not None:
        like = data.train[:1].expand(num_samples, *data.train.shape[1:])
        drawn = simulate(pair.model, like, seed=seed)
        top = float(data.spec.levels - 1) if data.spec.levels and data.spec.support == "levels" else 1.0
        columns = max(1, min(12, num_samples))
        figure = plots.plot_samples(drawn.mean, shape, ncols=columns, vmin=0.0, vmax=top)
        plots.save(figure, out / "samples.png")
        figure = plots.plot_reconstructions(
            data.test[:SHOWN], again.mean[:SHOWN], shape, ncols=SHOWN, vmin=0.0, vmax=top
        )
        plots.save(figure, out / "reconstructions.png")
        written += ["samples.png", "reconstructions.png"]
    latents = [v for v in again.latents.values() if v.dim() == 2 and v.shape[1] >= 2]
    if latents:
        labels = data.labels["test"] if data.labels else None
        plots.save(plots.plot_latent(latents[0], labels), out / "latent.png")
        written.append("latent.png")
    return written
