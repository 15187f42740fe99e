"""`pv.impute`: what is missing of data, drawn from its law given what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..checking import checked
from ..programs import inspect_program
from ..programs.generate.changed import LAWS_OF_X
from ..programs.generate.generated import ROWS
from ..programs.generate.predictive import decode
from ..programs.seeds import derive_seed
from .posterior import posterior

BLOCK = 2**24  # values of draws held at once, on the way to their quantiles


@dataclass(frozen=True)
class Imputation:
    """Missing values of data, by their posterior predictive law given what was observed.

    Attributes:
        x: the data as they were given, NaN where a value is missing, `[N, *event]`.
        missing: where, bool.
        draws: whole data, `[M, N, *event]`: what was observed, and M draws of the rest, each row from one draw of its
            latents: multiple imputations (Rubin 1987).
        mean: whole data with the posterior mean E[x_missing | x_observed]; of draws without a mean, theirs.
        low, high: ends of the central intervals of the draws, `[N, *event]`; what was observed has no width.
        level: probability of those intervals.
        khat, ess: of the importance weights, `[N]`; nan where nothing is missing. Where k-hat is above 0.7 or the ESS
            small, draws and intervals are of few draws of the guide, and too narrow.
    """

    x: Tensor = field(repr=False)
    missing: Tensor = field(repr=False)
    draws: Tensor = field(repr=False)
    mean: Tensor = field(repr=False)
    low: Tensor = field(repr=False)
    high: Tensor = field(repr=False)
    level: float
    khat: Tensor = field(repr=False)
    ess: Tensor = field(repr=False)

    def __repr__(self) -> str:
        some = self.missing.flatten(1).any(1)
        bad = int((self.khat[some.cpu()] > 0.7).sum())
        return (
            f"Imputation({int(self.missing.sum()):,} of {self.x.numel():,} values, {len(self.draws)} draws, "
            f"{100 * self.level:g} % intervals; k-hat > 0.7: {bad} of {int(some.sum())} rows)"
        )


@checked
def impute(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    num_samples: int = 1000,
    num_draws: int = 20,
    level: float = 0.9,
    seed: int = 0,
    plate: str | None = None,
) -> Imputation:
    r"""Draws :math:`x_\mathrm{missing} \sim p(x_\mathrm{missing} | x_\mathrm{observed})`, NaN standing for "missing".

    By sampling importance resampling: z of the guide, picked again with Pareto-smoothed weights
    :math:`p(z)\, p(x_\mathrm{observed}|z) / q(z|x_\mathrm{observed})`, then x of p(x|z). The model has to leave NaN out
    of its density, as `pyrovae.likelihoods.PartiallyObserved` does, and draw whole data where nothing is observed.

    Args:
        model, guide, x, *context, seed, plate: as in `pv.log_weights`.
        num_samples: K draws for each datum; mean and intervals are of all of them.
        num_draws: M of them that are kept.
        level: probability of the intervals.

    Raises:
        ValueError: no NaN in x; a level outside of (0, 1) or num_draws outside of 1 ... num_samples; a model that
            observes numbers that it makes of x, such as ln x; discrete latents that are summed out, latents outside of
            the data plate, or data that the model takes whole; as `pv.posterior`.

    Source:
        Rubin (1987), Multiple Imputation for Nonresponse in Surveys, https://doi.org/10.1002/9780470316696;
        MIWAE (Mattei & Frellsen, 2019), https://arxiv.org/abs/1812.02633

    Example:
        >>> from pyrovae import guides, likelihoods, networks, priors
        >>> from pyrovae.models.vae import VAE
        >>> p_x = likelihoods.Gaussian(networks.MLP(1, (4,), 3), 0.5)
        >>> encoder = networks.MLP(6, (4,), preprocess=networks.TableInputs([0, 0, 0], missing=True))
        >>> vae = VAE(
        ...     prior=priors.StandardNormal(1),
        ...     likelihood=likelihoods.PartiallyObserved(p_x, torch.zeros(3)),
        ...     guide=guides.DiagonalGaussian(encoder, 1),
        ... )
        >>> x = torch.tensor([[0.1, torch.nan, 0.3], [1.0, 2.0, 3.0]])
        >>> found = impute(vae.model, vae.guide, x, num_samples=50)
        >>> found.draws.shape, bool((found.mean[1] == x[1]).all())
        (torch.Size([20, 2, 3]), True)
    """
    if not 0 < level < 1:
        raise ValueError(f"expected a level in (0, 1), got {level}")
    if not 1 <= num_draws <= num_samples:
        raise ValueError(f"expected num_draws in 1 ... {num_samples} (num_samples), got {num_draws}")
    missing = x.isnan()
    if not bool(missing.any()):
        raise ValueError(
            "expected NaN where values are missing, got data without; there is nothing to impute"
        )
    program = inspect_program(model, guide, x, *context, plate=plate)
    beside, program = program.beside, program.in_parts()
    args = program.arguments
    reasons = {
        "discrete latents that are summed out": program.enumerated,
        "latents outside of the data plate": bool(program.globals),
        "a data plate that does not follow len(x)": args.calling != "sliced" or program.full_size is not None,
    }
    wrong = [words for words, there in reasons.items() if there]
    if wrong:
        raise ValueError(f"expected a program whose latents are drawn datum by datum, got {wrong[0]}")
    rows = missing.flatten(1).any(1).nonzero().flatten()
    # A guide that looks at other data is run on all of them.
    some = (x, *args.context) if beside else args.slice(rows)
    found = posterior(model, guide, *some, num_samples=num_samples, seed=seed, plate=plate)
    at = rows if beside else torch.arange(len(rows), device=x.device)
    mean, low, high = x.clone(), x.clone(), x.clone()
    draws = x.expand(num_draws, *x.shape).clone()
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device=x.device)
    size = max(1, min(ROWS, BLOCK // (num_samples * max(1, x[0].numel()))))
    picked = torch.randperm(num_samples, generator=torch.Generator().manual_seed(seed), device="cpu")[
        :num_draws
    ]
    for places in torch.arange(len(rows), device=x.device).split(size):
        here = rows[places]
        made: list[Tensor] = []
        means = torch.zeros(x[here].shape, dtype=torch.float64, device=x.device)
        for k in range(num_samples):
            latents = {name: v[k, at[places]] for name, v in found.resampled.items()}
            one = decode(
                model,
                latents,
                *args.slice(here),
                seed=derive_seed(seed, "impute", int(places[0]), k),
                on_changed=None if made or int(places[0]) else _refuse_changed,
            )
            if set(one.latents) != set(latents):
                raise ValueError(
                    f"expected draws of all latents of the model, {sorted(one.latents)}, got {sorted(latents)}"
                )
            made.append(one.x.to(x.dtype))
            means += one.mean.double() / num_samples
        whole = torch.stack(made)
        gone = missing[here]
        bounds = torch.quantile(whole.double(), ends, dim=0).to(x.dtype)
        mean[here] = torch.where(gone, means.to(x.dtype), x[here])
        low[here], high[here] = (torch.where(gone, bound, x[here]) for bound in bounds)
        draws[:, here] = torch.where(gone, whole[picked.to(x.device)], x[here])
    khat, ess = (torch.full((len(x),), torch.nan, dtype=torch.float64, device="cpu") for _ in range(2))
    khat[rows.cpu()], ess[rows.cpu()] = (v[at.to(v.device)].double().cpu() for v in (found.khat, found.ess))
    return Imputation(x, missing, draws, mean, low, high, level, khat, ess)


def _refuse_changed(name: str) -> None:
    raise ValueError(
        f"expected a model that observes x itself, got one whose site {name!r} holds numbers that it makes of x (as "
        f"x.log() or (x - mean) / scale): its draws are not in the units of the data that they would stand beside; try "
        f"a law of x ({LAWS_OF_X})"
    )
