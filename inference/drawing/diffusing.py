"""Samples and pictures of a trained diffusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyrovae import plots
from pyrovae.data import Dataset
from pyrovae.models.diffusing.diffusion_process import Process
from pyrovae.models.diffusing.noise_schedules import LearnedSchedule, LinearSchedule
from pyrovae.models.diffusion import DiffusionBound, DiffusionChain
from pyrovae.programs.modes import owners

from ..options.pair import Pair
from .arrays import write_arrays

STEPS, SHOWN = 250, 6


def diffusion_of(pair: Pair) -> DiffusionBound | DiffusionChain | None:
    """The diffusion that the pair's model belongs to, its weights those of the run; None for other programs."""
    found = [m for m in owners(pair.model) if isinstance(m, DiffusionBound | DiffusionChain)]
    return found[0] if found else None


def draw_diffusion(
    pair: Pair,
    data: Dataset,
    out: Path,
    num: int,
    steps: int | None,
    seed: int,
    weights_hash: str,
    format: str = "png",
) -> list[str]:
    """Writes samples.npz, a picture of the schedule and, of images, of samples and a chain; returns the names.

    Raises:
        ValueError: more steps than a discrete chain has.
    """
    owner = diffusion_of(pair)
    assert owner is not None
    steps = steps or owner.steps or STEPS
    process: Process = owner.process
    process.eval()
    x = owner.sample(num, steps, seed=seed)
    write_arrays(out / "samples.npz", {"x": x}, weights_hash)
    names = ["samples.npz"]
    ends = process.ends
    curves: dict[str, Any] = {"linear": LinearSchedule(*ends)}
    if not isinstance(process.schedule, LinearSchedule):
        learned = isinstance(process.schedule, LearnedSchedule)
        curves = {"learned" if learned else type(process.schedule).__name__: process.schedule, **curves}
    names.append(f"schedule.{format}")
    plots.save(plots.plot_noise_schedule(curves), out / names[-1], weights_hash)
    shape = data.spec.image_shape
    if shape is None:
        return names
    low, high = data.grey_scale
    names += [f"samples.{format}", f"chain.{format}"]
    plots.save(plots.plot_samples(x[:100], shape, 10, vmin=low, vmax=high), out / names[-2], weights_hash)
    # The same seed and number: these states end in these x.
    states = [z.flatten(1) for z in process.chain(num, steps, seed=seed)]
    gammas = process.gammas(steps).detach()
    drawn = plots.plot_chain(states, shape, x=process.encode(x), gammas=gammas, num=SHOWN)
    plots.save(drawn, out / names[-1], weights_hash)
    names.append(f"noising.{format}")
    start = data.test[:SHOWN].to(process.zero.device)
    states = [z.flatten(1) for z in process.noising(start, steps, seed=seed)]
    drawn = plots.plot_noising(states, shape, x=process.encode(start), gammas=gammas, num=SHOWN)
    plots.save(drawn, out / names[-1], weights_hash)
    return names
