"""The models of the Ising study: what they are made of, and how they are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from ..options.options import ModelOptions, TrainOptions

RecipeName = Literal["vae", "vae-flow", "vae-vamp", "hierarchical", "rbm"]
RBM_EXACT = 20  # hidden units up to which ln Z is enumerated in little time
COLD = 1.8  # below, chains of persistent CD do not change the sign of the magnetisation any more


@dataclass(frozen=True)
class Recipe:
    """A model, its training, and its title in tables and legends.

    Attributes:
        title: in tables and legends.
        model: its options.
        train: those of its training, its epochs apart.
        passes: its epochs, in units of `--epochs`.
        cold: its training below the temperature `COLD`, where that is another one.
    """

    title: str
    model: ModelOptions
    train: TrainOptions
    passes: int = 1
    cold: TrainOptions | None = None


_VAE = TrainOptions(batch_size=100, lr=3e-3, lr_end=3e-4, warmup=0)
_RBM = TrainOptions(batch_size=100, lr=1e-2, lr_end=1e-4, ema=0.99, objective="pcd", warmup=0)

RECIPES: dict[RecipeName, Recipe] = {
    "vae": Recipe("VAE, N(0, I) prior", ModelOptions(prior="standard", latent_dim=32), _VAE),
    "vae-flow": Recipe(
        "VAE, flow prior",
        ModelOptions(prior="flow-maf", latent_dim=32, flow_hidden=(64,), flow_transforms=2),
        _VAE,
    ),
    "vae-vamp": Recipe(
        "VAE, VampPrior",
        ModelOptions(prior="vamp", latent_dim=32, components=50),
        # Under the ELBO its latents collapse, at T = 2 to hardly more than the magnetisation.
        replace(_VAE, objective="dreg", particles=8),
    ),
    "hierarchical": Recipe(
        "hierarchical VAE",
        ModelOptions(model="hierarchical", widths=(32, 8), level_width=64),
        # Without warm-up its latents collapse from T_c upwards: at T = 3 a KL of 6.1 nats in place of 1.2.
        replace(_VAE, warmup=5),
    ),
    "rbm": Recipe(
        "RBM",
        ModelOptions(model="rbm", hidden=(64,)),
        _RBM,
        passes=3,  # a step costs a third of the others', and there is no posterior to learn
        # By persistent CD the weights of the two signs drift apart unseen: at T = 1.5 one was lost, a KL of 43.
        cold=replace(_RBM, objective="tempering"),
    ),
}
# One latent dim for all temperatures: is it the magnetisation?
ORDER = Recipe(
    "VAE, one latent",
    ModelOptions(latent_dim=1),
    TrainOptions(batch_size=100, lr=3e-3, lr_end=3e-4, warmup=0),
)


def trained_for(recipe: Recipe, epochs: int, seed: int, T: float = math.inf) -> Recipe:
    """The recipe with so many epochs (times its own factor) and this seed, for data of this temperature."""
    train = recipe.cold if recipe.cold is not None and T < COLD else recipe.train
    return replace(recipe, train=replace(train, epochs=epochs * recipe.passes, seed=seed))
