r"""Terms of the ELBO surgery, with their errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

LEAST = 1e-4  # nats, from where on a reader is told of what draws leave out


@dataclass(frozen=True)
class Term:
    """A mean over data and draws, nats per datum.

    Attributes:
        value: the mean.
        se: its Monte-Carlo standard error over these very data.
        se_data: its standard error for the law of the data, Monte-Carlo noise included.
    """

    value: float
    se: float
    se_data: float = math.nan

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"{self.value:.4f} ± {self.se_data:.4f} (data) ± {self.se:.4f} (MC)"


@dataclass(frozen=True, eq=False)
class ElboSurgery:
    """mean KL(q(z|x_n) ‖ p(z)) = I_q(x; z) + KL(q(z) ‖ p(z)), q(z) = (1/N) sum_n q(z|x_n).

    All terms are means over the same K draws for each datum, so that the identity holds to rounding, draw by draw.

    Attributes:
        log_own: ln q(z_nk | x_n), `[K, N]`, float64.
        log_prior: ln p(z_nk), `[K, N]`.
        log_likelihood: ln p(x_n | z_nk), `[K, N]`.
        log_aggregate: ln of the mean of q(z_nk | x_m) over the components, x_n among them, `[K, N]`.
        log_others: the same without x_n, `[K, N]`.
        num_components: M, how many data make up the aggregate; N: all, and it is exact.
        shares: c_m = sum_n mean_k q(z_nk | x_m) / sum_l q(z_nk | x_l): how many data's worth of draws fall to the
            posterior of x_m, `[N]`, of mean 1.
        unmet: mass of values of discrete latents that the draws are not to meet, see `unmet_mass`.

    Errors over data are by the infinitesimal jackknife (Jaeckel 1972; Efron 1982,
    https://doi.org/10.1137/1.9781611970319): a datum counts by its own draws and as a component of every other datum's
    aggregate, so that leaving x_m out moves the mean of ln q(z) by (g_m - mean g + c_m - 1) / N.
    """

    log_own: Tensor = field(repr=False)
    log_prior: Tensor = field(repr=False)
    log_likelihood: Tensor = field(repr=False)
    log_aggregate: Tensor = field(repr=False)
    log_others: Tensor = field(repr=False)
    num_components: int
    shares: Tensor = field(repr=False)
    unmet: float = field(default=0.0, repr=False)

    @property
    def num_data(self) -> int:
        """N."""
        return self.log_own.shape[1]

    @property
    def exact_aggregate(self) -> bool:
        """Whether the aggregate is that of all data given."""
        return self.num_components == self.num_data

    @property
    def mean_kl(self) -> Term:
        """mean KL(q(z|x_n) ‖ p(z)): the rate, what the ELBO subtracts."""
        return self._term(self.log_own - self.log_prior)

    @property
    def mutual_information(self) -> Term:
        """I_q(x; z) with x uniform over the N data, 0 ... ln N; of M < N components a lower bound of it.

        For the law of the data it is a lower bound, in expectation: N data tell apart at most ln N.
        """
        return self._term(self.log_own - self.log_aggregate, -self.shares)

    @property
    def mutual_information_upper(self) -> Term:
        """The same with x_n left out of its aggregate: an upper bound of both, in expectation (Poole et al. 2019)."""
        return self._term(self.log_own - self.log_others, -self.shares)

    @property
    def marginal_kl(self) -> Term:
        """KL(q(z) ‖ p(z)) of the aggregate posterior of these data; of M < N components an upper bound of it.

        For the law of the data it is an upper bound, in expectation.
        """
        return self._term(self.log_aggregate - self.log_prior, self.shares)

    @property
    def marginal_kl_lower(self) -> Term:
        """mean KL - `mutual_information_upper`: a lower bound of both, in expectation; may be negative."""
        return self._term(self.log_others - self.log_prior, self.shares)

    @property
    def reconstruction(self) -> Term:
        """mean E_q[ln p(x|z)]."""
        return self._term(self.log_likelihood)

    @property
    def elbo(self) -> Term:
        """reconstruction - I - KL(q(z) ‖ p(z)), which is the ELBO."""
        return self._term(self.log_likelihood + self.log_prior - self.log_own)

    @property
    def warnings(self) -> list[str]:
        """Warnings that belong to the numbers."""
        out, most = [], math.log(self.num_components)
        if float(self.mutual_information) > most - 0.7:  # half of the data are told apart
            out.append(
                f"I_q is within 0.7 nats of its ceiling ln {self.num_components:,} = {most:.2f}: the data are told "
                "apart almost surely, and for the law of the data I_q may be far larger, the marginal KL far smaller"
            )
        if self._missed > LEAST:
            out.append(
                f"values of discrete latents of a mass of {self.unmet:.2g} under the guide are hardly ever drawn: what "
                f"they add to each term, some {self._missed:.1g} nats, is counted in ± (MC) alone; try more num_samples"
            )
        if not self.exact_aggregate:
            out.append(
                f"the aggregate is of {self.num_components} of {self.num_data} data: bounds of the terms of all data"
            )
        return out

    @property
    def _missed(self) -> float:
        """Largest part of a term, nats, that values which no draw meets may add: their mass m times ln 1/m."""
        return self.unmet * max(1.0, -math.log(self.unmet)) if self.unmet else 0.0

    def _term(self, values: Tensor, shares: Tensor | None = None) -> Term:
        """Mean of `[K, N]`, and both its errors; `shares` are those of a datum in the aggregate, with its sign."""
        k, n = values.shape
        se = float((values.var(0) / k).sum().sqrt()) / n if k > 1 else math.nan
        influence = values.mean(0)
        if shares is not None:
            influence = influence + shares
        se_data = math.hypot(float(influence.std()) / math.sqrt(n), self._missed)
        return Term(float(values.mean()), math.hypot(se, self._missed), se_data)

    def __repr__(self) -> str:
        how = ("", "", "") if self.exact_aggregate else (" ≥", " ≤", f", {self.num_components} components")
        return (
            f"ElboSurgery(mean KL {self.mean_kl} = I_q{how[0]} {self.mutual_information} + KL(q(z) ‖ p(z)){how[1]} "
            f"{self.marginal_kl} nats; ln N = {math.log(self.num_data):.4f}, N={self.num_data}{how[2]})"
        )
