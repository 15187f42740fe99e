"""Mass that draws of wider laws find beyond an estimate, and the data that it counts for."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

# In an estimate's details, by law: p̂'(x) / p̂(x) - 1 of its draws, `[N]`, and its standard error.
LAWS = {"prior": "the prior", "flatter": "a guide with flatter discrete latents"}
FAILED = "beyond, prior: failed"  # and why such draws could not be made or scored
LEAST = 0.01  # of p(x): a two-sided statement leaves out no more
LEAST_OF_ALL = 0.05  # on average over data of which none is sure of it
SIGMAS = 5.0  # of that average
FALSE_ALARMS = 0.003  # of single data, in all


def keys_of(law: str) -> tuple[str, str]:
    """Names in an estimate's details of what a law's draws find beyond it, and of the standard error."""
    return f"beyond, {law}", f"beyond, {law}: error"


def found_beyond(details: Mapping[str, Any], law: str) -> Tensor | None:
    """Data for which a law's draws find more of p(x) than an estimate has, `[N]` bool; None: it was not drawn from.

    More than 1 %, beyond four standard errors, or as many as N data take. Data that share guide and prior may miss the
    same mode, each of them with too few draws to be sure. Where the mean over those that are not sure is above 5 % by
    five standard errors, or half of all are sure, the others are taken as well that have not shown that they miss less
    than half of that; data that no draw has hit, whose own errors are too small, with the error that is usual.
    """
    share, error = (details.get(key) for key in keys_of(law))
    if share is None or error is None:
        return None
    sigmas = max(4.0, NormalDist().inv_cdf(1 - FALSE_ALARMS / len(share)))
    beyond: Tensor = share - sigmas * error > LEAST
    unsure = ~beyond & torch.isfinite(share) & torch.isfinite(error)
    if bool(unsure.any()):
        mean, variance = share[unsure].mean(), error[unsure].square().mean()
        most_are_sure = bool(2 * beyond.sum() >= len(beyond))
        together = bool(mean - SIGMAS * (variance / unsure.sum()).sqrt() > LEAST_OF_ALL)
        if most_are_sure or together:
            usual = share[beyond].median() if most_are_sure else mean
            beyond |= ~(share + 2 * error.clamp(min=float(variance.sqrt())) < usual / 2)
    return beyond


def any_beyond(details: Mapping[str, Any]) -> Tensor | None:
    """Data for which draws of some law do, `[N]` bool; None: no law was drawn from."""
    found = [b for law in LAWS if (b := found_beyond(details, law)) is not None]
    return torch.stack(found).any(0) if found else None


def beyond_notes(details: Mapping[str, Any]) -> list[str]:
    """How much more it is, for how many data, and the remedy."""
    notes = []
    if FAILED in details:
        notes.append(
            f"the model fails at draws of the prior ({details[FAILED]}): what the guide leaves out was not looked for"
        )
    for law, words in LAWS.items():
        beyond = found_beyond(details, law)
        if beyond is None or not bool(beyond.any()):
            continue
        share = details[keys_of(law)[0]][beyond]
        times = 1 + float(share[torch.isfinite(share)].mean())
        notes.append(
            f"by draws of {words}, p(x) is {times:.2f} times what the guide's draws find (mean over "
            f"{float(beyond.double().mean()):.0%} of the data): the guide leaves out a part of the posterior, and the "
            "estimate is a lower bound and no more there; try a guide that reaches it, pv.IS(K, defensive=0.1), or "
            'pv.AIS(start="prior")'
        )
    return notes
