"""What draws of wider laws find beyond an estimate, and what that says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# In an estimate's details, by law: p̂'(x) / p̂(x) - 1 of its draws, `[N]`, and its standard error.
LAWS = {"prior": "the prior", "flatter": "a guide with flatter discrete latents"}
SIGMAS = 5.0
CLEARED = 3.0  # standard errors below the mean
LEAST = 0.01  # of p(x): a two-sided statement leaves out no more


def keys_of(law: str) -> tuple[str, str]:
    """Names in an estimate's details of what a law's draws find beyond it, and of the standard error."""
    return f"beyond, {law}", f"beyond, {law}: error"


def found_beyond(details: Mapping[str, Any], law: str) -> Tensor | None:
    """Data for which a law's draws find more of p(x) than an estimate has, `[N]` bool; None: it was not drawn from.

    More than 1 %, with 5 standard errors between. Where the mean over all data says so, that is said of all for which
    it may be true: they share guide and prior, and with few draws each a mode shows in their mean alone.
    """
    share, error = (details.get(key) for key in keys_of(law))
    if share is None or error is None:
        return None
    beyond = share - SIGMAS * error > LEAST
    known = torch.isfinite(share) & torch.isfinite(error)
    if bool(known.any()):
        mean, of_mean = share[known].mean(), error[known].square().sum().sqrt() / known.sum()
        if bool(mean - SIGMAS * of_mean > LEAST):
            beyond |= ~(share + CLEARED * error < mean)
    return beyond


def any_beyond(details: Mapping[str, Any]) -> Tensor | None:
    """Data for which draws of some law do, `[N]` bool; None: no law was drawn from."""
    found = [b for law in LAWS if (b := found_beyond(details, law)) is not None]
    return torch.stack(found).any(0) if found else None


def beyond_notes(details: Mapping[str, Any]) -> list[str]:
    """How much more it is, for how many data, and the remedy."""
    notes = []
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
