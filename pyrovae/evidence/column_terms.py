"""`pv.column_terms`: the reconstruction term of the ELBO, column by column of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..checking import checked
from ..programs import inspect_program
from ..programs.elements import elements_of, observed_law
from ..programs.sites import Sites
from ..text import listed
from .core.checks import check_num_samples
from .core.chunks import pairs_in
from .core.estimate import standard_error
from .core.tables import render


@dataclass(frozen=True)
class ColumnTerms:
    r"""Terms of :math:`\mathrm{ELBO} = \sum_d E_q \ln p(x_d | z) - \mathrm{KL}`, of the same draws: they add up.

    The evidence itself does not divide: ln p(x) is no sum over columns, since z ties them together.

    Attributes:
        columns: names of the columns.
        reconstruction: E_q ln p(x_d | z) `[N, D]`, float64, nats; 0 where a value is missing.
        kl: E_q [ln q(z | x) - ln p(z)] `[N]`, nats.
        num_samples: K, draws per datum.
    """

    columns: tuple[str, ...]
    reconstruction: Tensor = field(repr=False)
    kl: Tensor = field(repr=False)
    num_samples: int

    @property
    def elbo(self) -> Tensor:
        """Their sum `[N]`, nats."""
        return self.reconstruction.sum(1) - self.kl

    def to_columns(self) -> dict[str, list[float]]:
        """Columns of a table of rows: ln p(NAME | z) for each, and KL."""
        found = {
            f"ln p({name} | z)": self.reconstruction[:, d].tolist() for d, name in enumerate(self.columns)
        }
        return found | {"KL": self.kl.tolist()}

    def table(self, most: int = 20, style: str = "terminal") -> str:
        """Means over data with their standard errors, the `most` least first, and what they add to."""
        order = self.reconstruction.mean(0).argsort().tolist()
        rest = order[most:]
        terms = [(self.columns[d], self.reconstruction[:, d]) for d in order[:most]]
        if rest:
            terms.append((f"{len(rest):,} more", self.reconstruction[:, rest].sum(1)))
        terms += [("- KL", -self.kl), ("sum: ELBO", self.elbo)]
        rows = [[name, f"{float(v.mean()):.4f}", f"{standard_error(v):.4f}"] for name, v in terms]
        note = f"K = {self.num_samples}; ln p(x) itself does not divide among columns: z ties them together"
        return render(style, ["column", "nats", "± data"], rows, "E_q ln p(x_d|z) of each column", [note])

    def __repr__(self) -> str:
        return f"ColumnTerms({len(self.columns)} columns, {len(self.kl)} data, ELBO {float(self.elbo.mean()):.4f} nats)"


@checked
def column_terms(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    columns: Sequence[str] | None = None,
    num_samples: int = 100,
    seed: int = 0,
    plate: str | None = None,
    budget: int | None = None,
) -> ColumnTerms:
    r"""Reconstruction term of each column, :math:`E_q \ln p(x_d | z)`, and the KL: they add to the ELBO.

    Args:
        model, guide, x, *context, plate, budget: as in `pv.log_weights`; x is `[N, D]`.
        columns: their names; default: their numbers.
        num_samples: K draws z ~ q(z | x) for each datum.
        seed: of the draws.

    Raises:
        ValueError: data that are no rows; names that are not one a column, or one of them twice; latents that are
            summed out, of which the ELBO is no sum over columns; a likelihood whose numbers are not independent given
            z, or are masked as a whole; several observed sites.

    Example:
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> terms = column_terms(pair.model, pair.guide, pair.x, num_samples=50)
        >>> terms.reconstruction.shape == pair.x.shape
        True
    """
    check_num_samples(num_samples)
    if x.dim() != 2:
        raise ValueError(f"expected rows [N, D], got data of shape {list(x.shape)}")
    names = tuple(map(str, range(x.shape[1]))) if columns is None else tuple(columns)
    if len(names) != x.shape[1]:
        raise ValueError(f"expected a name for each of {x.shape[1]} columns, got {len(names)}")
    if len(set(names)) < len(names):
        raise ValueError(
            f"expected names that differ, got {listed([n for n in names if names.count(n) > 1])}"
        )
    program = inspect_program(model, guide, x, *context, plate=plate)
    if program.enumerated:
        raise ValueError(
            "expected latents that are drawn, got some that are summed out: ln of a sum is no sum over columns"
        )
    args = program.arguments
    rows = (
        max(1, pairs_in(program, budget) // (num_samples * x.shape[1]))
        if args.calling == "sliced"
        else len(x)
    )
    terms, kls = [], []
    for i, indices in enumerate(args.chunks(rows)):
        term = torch.zeros(len(indices), x.shape[1], dtype=torch.float64, device="cpu")
        kl = torch.zeros(len(indices), dtype=torch.float64, device="cpu")
        with program.quiet(seed, "columns", i):
            # One draw after the other where it does not broadcast: of several runs the traces are not kept.
            each = num_samples if program.vectorised else 1
            for _ in range(num_samples // each):
                sites = program.run(indices, each)
                term += _elements(sites, x.shape[1]).sum(0)
                kl += (_summed(sites.guide) - _summed(sites.prior)).sum(0)
        terms.append(term / num_samples)
        kls.append(kl / num_samples)
    return ColumnTerms(names, torch.cat(terms), torch.cat(kls), num_samples)


def _elements(sites: Sites, width: int) -> Tensor:
    """ln p of each number `[K, n, D]`, float64."""
    if len(sites.likelihood) != 1:
        raise ValueError(
            f"expected one observed site, whose columns are told apart, got {sorted(sites.likelihood)}"
        )
    ((name, whole),) = sites.likelihood.items()
    law, value = observed_law(sites, name)
    # Where a plate of fixed size was filled up, the last rows are repetitions.
    elements = elements_of(law, value).double().cpu()[..., : whole.shape[-1], :].expand(*whole.shape, width)
    whole = whole.double().cpu()
    if not torch.allclose(elements.sum(-1), whole, rtol=1e-4, atol=1e-3):
        raise ValueError(
            f"expected ln p at {name!r} to be the sum over its columns, got another; does it have a mask?"
        )
    return elements


def _summed(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([t.double().cpu() for t in terms.values()]).sum(0)
