"""Building of a semi-supervised VAE and its objective from option names, and the accuracy of its classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.data import Dataset
from pyrovae.data.spec import KNOWN
from pyrovae.models.composing.semi_supervised import compose_semi_supervised
from pyrovae.models.semi_supervised import SemiSupervisedVAE
from pyrovae.programs.modes import owners

from ..options import ModelOptions, TrainOptions
from ..parts import COMPONENTS, LATENT_DIM, NETWORKS, make_guide, make_likelihood, make_networks, make_prior


def build_semi_supervised(options: ModelOptions, data: Dataset) -> SemiSupervisedVAE:
    """The semi-supervised VAE that the options name.

    Raises:
        ValueError: data whose labels are not given, or a VampPrior, whose pseudo-inputs have none.
    """
    if options.prior == "vamp":
        raise ValueError(
            "expected another --prior for a semi-supervised model than vamp, whose pseudo-inputs have no labels; try "
            "mixture"
        )
    return compose_semi_supervised(
        data,
        make_networks(options, NETWORKS["mlp"]),
        options.latent_dim or LATENT_DIM,
        prior=make_prior(options, data, COMPONENTS),
        guide=make_guide(options),
        likelihood=make_likelihood(options, data),
    )


def own_objective(pair: Any, data: Dataset, train: TrainOptions) -> dict[str, Any]:
    """The objective of a semi-supervised model for `pv.fit`, with --alpha N / N_labelled; empty for other models.

    Raises:
        ValueError: another objective, several particles, or free bits.
    """
    owner = machine_of(pair)
    if owner is None:
        return {}
    if train.objective != "trace-elbo" or train.particles is not None or train.free_bits:
        raise ValueError(
            "expected --objective trace-elbo, which sums over labels, one particle and no free bits for a "
            f"semi-supervised model, got {train.objective}, {train.particles} and {train.free_bits:g}"
        )
    assert data.context is not None
    (y,) = data.context["train"]
    known = int((y >= 0).sum())
    return {"objective": owner.objective(train.alpha * len(y) / max(1, known))}


def machine_of(pair: Any) -> SemiSupervisedVAE | None:
    """The semi-supervised model that a pair or a run belongs to; None for other programs."""
    model = pair[0] if isinstance(pair, tuple) else pair.model
    return next((m for m in owners(model) if isinstance(m, SemiSupervisedVAE)), None)


def accuracy(run: pv.Run, x: Tensor, labels: Tensor, rows: int = 4096) -> tuple[float, float] | None:
    """Share of data whose label q(y|x) finds, and its standard error; None for other models, or without a label."""
    owner = machine_of(run)
    if owner is None or not bool((labels >= 0).any()):
        return None
    found = torch.cat([owner.classify(part).argmax(-1) for part in x.split(rows)])
    right = (found == labels.to(found.device))[labels.to(found.device) >= 0].double()
    return float(right.mean()), float((right.mean() * (1 - right.mean()) / len(right)).sqrt())


def words_of_accuracy(run: pv.Run, rows: tuple[Tensor, ...], labels: Tensor | None) -> str:
    """One line on the accuracy; empty for other models, and where labels are not there."""
    if KNOWN not in run.spec.given or labels is None:
        return ""
    found = accuracy(run, rows[0], labels)
    if found is None:
        return ""
    share, se = found
    known = run.data.context["train"][0]
    return (
        f"accuracy of q(y|x): {share:.4f} ± {se:.4f} (error {100 * (1 - share):.2f} %), labels of "
        f"{int((known >= 0).sum()):,} of {len(known):,} training data known; evidence is ln p(x), labels summed out"
    )
