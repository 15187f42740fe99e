"""Draws that follow the density of their law, where those of torch and Pyro do not.

`LKJCholesky` (torch): the squared length of row k (k = 1, ..., D - 1; without its diagonal) is Beta(k / 2,
concentration + (D - 1 - k) / 2) (Lewandowski et al. 2009, https://doi.org/10.1016/j.jmva.2009.04.008, section 3.2).
torch has k - 1/2 in place of k / 2, the same in two dimensions alone: in three, at concentration 1, E_p[q / p] of its
draws is .80 for a q of concentration 2, in place of 1.

`SineBivariateVonMises` (Pyro): angles phi are drawn by rejection from an angular central Gaussian (Kent et al. 2018,
https://doi.org/10.1007/s11222-017-9756-4), whose two axes Pyro takes for each other in half of its proposals: at
concentrations 2 and 1 and correlation .5, E cos(phi) of its draws is .62 in place of .69.

Every importance weight of such a draw is wrong, and so is every draw of such a prior. The laws are mended for all who
draw from them in this process, as Pyro itself mends what torch lacks.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from pyro.distributions import SineBivariateVonMises
from torch import Tensor
from torch.distributions import Beta, LKJCholesky, VonMises


def _mend_lkj() -> None:
    made = LKJCholesky.__init__
    lengths = getattr(LKJCholesky(3), "_beta", None)
    if lengths is None or float(lengths.concentration1[-1]) == 1:
        return  # a torch that has it right

    @functools.wraps(made)
    def make(self: Any, dim: int, *args: Any, **kwargs: Any) -> None:
        made(self, dim, *args, **kwargs)
        rest = self._beta.concentration0
        # Row 0 has no length to draw.
        rows = torch.arange(dim, dtype=rest.dtype, device=rest.device).clamp(min=1)
        self._beta = Beta(rows / 2, rest)

    LKJCholesky.__init__ = make  # type: ignore[method-assign]


@torch.no_grad()
def draw_torus(law: Any, sample_shape: Any = ()) -> Tensor:
    """Draws of a `SineBivariateVonMises`, `[*sample_shape, *batch_shape, 2]`, in [-pi, pi).

    phi has the density exp(k1 cos phi) I0(sqrt(k2^2 + (r sin phi)^2)) up to a factor, and psi given phi is VonMises.
    """
    k1, k2, r = law.phi_concentration, law.psi_concentration, law.correlation
    # exp(-x'Ax) bounds the density of the unit vector x = (cos phi, sin phi), A = diag(0, bend) less its least element.
    bend = 0.5 * (k1 - r**2 / k2)
    least = bend.clamp(max=0)
    a = torch.stack((-least, bend - least))
    b = law._bfind(a)
    phi = torch.zeros(torch.Size(sample_shape) + law.batch_shape, dtype=k1.dtype, device=k1.device)
    left = torch.ones_like(phi, dtype=torch.bool)
    for _ in range(law.max_sample_iter):
        if not left.any():
            break
        axes = [torch.randn_like(phi) * torch.rsqrt(1 + 2 * own / b) for own in a]
        across = torch.atan2(axes[1], axes[0])
        cos, sin = across.cos(), across.sin()
        alpha = torch.sqrt(k2**2 + (r * sin) ** 2)
        log_f = k1 * (cos - 1) + least + _log_i0(alpha) - _log_i0(k2)
        log_bound = b / 2 - 1 - torch.log(b / 2 + a[0] * cos**2 + a[1] * sin**2)
        taken = left & (torch.rand_like(phi).log() < log_f - log_bound)
        phi = torch.where(taken, across, phi)
        left &= ~taken
    else:
        raise ValueError(
            f"expected finite parameters of SineBivariateVonMises, got {k1}, {k2} and correlation {r}"
        )
    sin = phi.sin()
    psi = VonMises(torch.atan(r / k2 * sin), torch.sqrt(k2**2 + (r * sin) ** 2)).sample()
    angles = torch.stack((phi + law.phi_loc, psi + law.psi_loc), -1)
    return (angles + math.pi) % (2 * math.pi) - math.pi


def _log_i0(value: Tensor) -> Tensor:
    return torch.special.i0e(value).log() + value


_mend_lkj()
SineBivariateVonMises.sample = draw_torus  # type: ignore[method-assign]
