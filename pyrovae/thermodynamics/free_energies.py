"""Free energies of a program at several temperatures: the result of `free_energy`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..evidence.core.direction import Direction
from ..evidence.core.estimate import VISIBLE
from ..evidence.core.tables import check_style, render
from ..evidence.weights.diagnostics import ALONE, MIN_SAMPLES, khat_threshold
from ..programs import LABELS

# An estimate that lies above on average says that the truth is at most that.
BOUND: dict[Direction, str] = {">=": "≤ ", "<=": "≥ ", "~": "", "none": "? "}


@dataclass(frozen=True, eq=False)
class FreeEnergy:
    """F_q(T) and F_p(T) of a model and its guide, per datum, float64, nats.

    The energy of z is E(z) = -ln p(x, z), at every temperature; p_T(z) = p(x, z)^{1/T} / Z_T. Variances are
    Monte Carlo ones: NaN where unknown, 0 where exact.

    Attributes:
        temperatures: `[T]`, rising.
        energy: <E>_q, `[N]`.
        entropy: S_q = -<ln q>_q, `[N]`; of continuous latents it depends on their units, as E does.
        variational: F_q(T) = <E>_q - T S_q, `[T, N]`; -ELBO at T = 1.
        helmholtz: F_p(T) = -T ln of the integral of p(x, z)^{1/T} over z, `[T, N]`; -ln p(x) at T = 1.
        gap: F_q - F_p = T KL(q ‖ p_T) >= 0, `[T, N]`; of the same draws where both are made of them.
        variances: of energy and entropy `[N]`, variational, helmholtz and gap `[T, N]`, by name; of
            equilibrium_energy, equilibrium_entropy and heat_capacity where they are taken (jackknife over draws
            or chains).
        bias: estimated bias of helmholtz, `[T, N]`.
        direction: of helmholtz in expectation: ">=" where ln of an average stands for ln of the integral
            (IS, AIS), which is low; "~" where it is exact.
        estimator: what gave helmholtz.
        num_samples: K draws behind energy and entropy.
        equilibrium_energy: <E>_p under p_T, `[T, N]`; None where not taken (`Exact`).
        equilibrium_entropy: S_p = -<ln p_T>_p, `[T, N]`, so that F_p = <E>_p - T S_p; None where not taken.
        heat_capacity: C(T) = d<E>/dT = Var_{p_T}(E) / T^2, `[T, N]`; None where not taken.
        ess, khat: of the weights for p_T, `[T, N]`; None where there are none.
        details: the method in words; acceptance, numerical errors.
    """

    temperatures: Tensor
    energy: Tensor
    entropy: Tensor
    variational: Tensor
    helmholtz: Tensor
    gap: Tensor
    variances: dict[str, Tensor] = field(repr=False)
    bias: Tensor = field(repr=False)
    direction: Direction
    estimator: str
    num_samples: int
    equilibrium_energy: Tensor | None = field(default=None, repr=False)
    equilibrium_entropy: Tensor | None = field(default=None, repr=False)
    heat_capacity: Tensor | None = field(default=None, repr=False)
    ess: Tensor | None = field(default=None, repr=False)
    khat: Tensor | None = field(default=None, repr=False)
    details: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def gap_direction(self) -> Direction:
        """Direction of the gap in expectation: "<=" (understated) where helmholtz is overstated."""
        return "<=" if self.direction == ">=" else self.direction

    @property
    def kl(self) -> Tensor:
        """KL(q ‖ p_T) = gap / T, `[T, N]`."""
        return self.gap / self.temperatures.unsqueeze(-1)

    def mean(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """(mean over data, its standard error over data, its Monte-Carlo standard error) of a field, nats.

        `[T]` each; of energy and entropy single numbers. The error over data is for the law of the data
        and holds the Monte-Carlo noise; the other is for these very data, and that of F_p and of the gap holds what
        numerical error four digits show.

        Raises:
            ValueError: for another name.
        """
        if name not in self.variances:
            raise ValueError(f"expected one of {list(self.variances)}, got {name!r}")
        values: Tensor = getattr(self, name)
        n = values.shape[-1]
        spread = (
            values.std(-1) / math.sqrt(n) if n > 1 else torch.full(values.shape[:-1], math.nan, device="cpu")
        )
        error = self.variances[name].sum(-1).sqrt() / n
        if name in ("helmholtz", "gap"):
            error = torch.hypot(error, self._numerical())
        return values.mean(-1), spread, error

    def _numerical(self) -> Tensor:
        """Numerical error of F_p where four digits show it, mean over data, `[T]`, nats; else 0."""
        found = self.details.get("numerical_error")
        if found is None:
            return torch.zeros_like(self.temperatures)
        error = self.temperatures * found.mean(-1)
        return torch.where(error > VISIBLE, error, 0.0)

    @property
    def warnings(self) -> list[str]:
        """Warnings that belong to the numbers."""
        out = []
        if self.direction == ">=":
            out.append(
                f"{self.estimator} overstates F_p, so the gap is understated; estimated bias of F_p: at most "
                f"{float(self.bias.mean(-1).max()):+.2g} nats"
            )
        if self.ess is not None:
            drawn = self.num_samples if self.estimator == "IS" else None
            if drawn is not None and drawn < MIN_SAMPLES:
                out.append(
                    f"K = {drawn} is too few to tell whether the errors can be trusted (k-hat needs {MIN_SAMPLES})"
                )
            alone = (self.ess < ALONE).double().mean(-1)
            for t, share in zip(self.temperatures.tolist(), alone.tolist(), strict=True):
                if share > 0:
                    out.append(
                        f"at T = {t:g} one weight decides for {share:.0%} of the data (ESS < {ALONE:g}): F_p lies "
                        "below the one given by more than its ± can tell; try pv.AIS, pv.Exact or more samples"
                    )
        if self.khat is not None:
            # NaN below 25 draws; +inf where the largest weights are equal, as discrete latents make them.
            heavy = (self.khat > khat_threshold(self.num_samples)) & torch.isfinite(self.khat)
            bad = heavy.double().mean(-1)
            for t, share in zip(self.temperatures.tolist(), bad.tolist(), strict=True):
                if share > 0.1:
                    out.append(
                        f"at T = {t:g} the weights of {share:.0%} of the data have tails too heavy for their errors "
                        "(k-hat); try pv.AIS or pv.Exact"
                    )
        for t, error in zip(self.temperatures.tolist(), self._numerical().tolist(), strict=True):
            if error:
                out.append(
                    f"at T = {t:g} F_p has a numerical error of {error:.2g} nats per datum, which its ± holds; try "
                    "float64 (x.double(), and .double() of the modules), or a smaller tolerance"
                )
        return out

    def table(self, style: str = "terminal") -> str:
        """One row a temperature, means over data ± Monte-Carlo errors; `"terminal"`, `"markdown"` or `"latex"`.

        ⟨E⟩_p and T S_p, whose difference F_p is, are beside it where they are taken.

        Raises:
            ValueError: for another style.
        """
        check_style(style)
        p, g = BOUND[self.direction], BOUND[self.gap_direction]
        head = ["T", "⟨E⟩_q", "T S_q", "F_q", f"F_p {self.estimator}", "F_q − F_p = T KL"]
        equilibrium = [n for n in ("equilibrium_energy", "equilibrium_entropy") if n in self.variances]
        if len(equilibrium) == 2:
            head += ["⟨E⟩_p", "T S_p"]
        energy, _, energy_se = self.mean("energy")
        entropy, _, entropy_se = self.mean("entropy")
        columns = {n: self.mean(n) for n in ("variational", "helmholtz", "gap")}
        rows = []
        for i, t in enumerate(self.temperatures.tolist()):
            fq, fp, gap = ((v[0][i], v[2][i]) for v in columns.values())
            rows.append(
                [
                    f"{t:g}",
                    _pm(energy, energy_se),
                    _pm(t * entropy, t * entropy_se),
                    _pm(*fq),
                    f"{p}{_pm(*fp)}",
                    f"{g}{_pm(*gap)}",
                ]
            )
            if len(equilibrium) == 2:
                of_p, s_p = (self.mean(n) for n in equilibrium)
                rows[-1] += [_pm(of_p[0][i], of_p[2][i]), _pm(t * s_p[0][i], t * s_p[2][i])]
        n = self.energy.shape[-1]
        label = LABELS.get(self.details.get("measure", "mass"), "")
        title = f"free energies{label}, nats per datum ± one Monte-Carlo error; {n} data, K = {self.num_samples:,}"
        return render(style, head, rows, title, self.warnings)

    def plot(self, ax: Any = None) -> Any:
        """F_q and F_p against T; see `pyrovae.plots.plot_free_energies`."""
        from ..plots import plot_free_energies

        return plot_free_energies(self, ax)

    def __repr__(self) -> str:
        gap, _, se = self.mean("gap")
        g = BOUND[self.gap_direction]
        parts = [
            f"T={t:g}: {g}{m:.4f} ± {e:.4f}"
            for t, m, e in zip(self.temperatures.tolist(), gap.tolist(), se.tolist(), strict=True)
        ]
        return (
            f"FreeEnergy(F_q − F_p by {self.estimator}: {', '.join(parts)} nats; N={self.energy.shape[-1]})"
        )


def _pm(value: Any, se: Any) -> str:
    text = f"{float(value):.4f}" + (f" ± {float(se):.4f}" if float(se) > 0 else "")
    return text.replace("-", "−")
