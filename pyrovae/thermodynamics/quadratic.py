"""The integral of p(x, z)^{1/T} where the energy is quadratic in z, as in any linear-Gaussian program."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..programs import Program, seeded
from ..programs.latents.densities import Densities

CHECKS = 16  # draws at which the quadratic form is held against the program


def quadratic_log_integrals(
    program: Program, indices: Tensor, temperatures: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """ln of the integral of p(x, z)^{1/T} dz, `[T, n]`, and the error of the quadratic form, `[n]`, nats.

    With E(z) = E_0 + (z - m)' A (z - m) / 2 it is -E_0 / T + (D/2) ln(2 pi T) - (1/2) ln det A. The form is
    read off gradients at D + 1 points, which determine it, and compared with the program at draws of the
    guide: the error is the largest difference there, relative to 1 + |E|.

    Args:
        program: with real-valued latents.
        indices: the data.
        temperatures: `[T]`.
        seed: of the draws.

    Raises:
        ValueError: latents with other supports than the reals, discrete ones, or an energy that is not quadratic.
    """
    first = Densities(program, indices, 1)
    dim = first.width
    densities = Densities(program, indices, 1 + dim + CHECKS)
    device = indices.device
    with seeded(seed, "quadratic", device=device):
        u = densities.initial("guide", density=False)
    u[0], u[1 : 1 + dim] = 0.0, torch.eye(dim, dtype=u.dtype, device=device).unsqueeze(1)
    with torch.no_grad():
        jacobian = densities.terms(u).log_jacobian
    base, slope, base_grad, slope_grad = densities.evaluate(u, "prior")
    energy, force = -(base + slope).double(), -(base_grad + slope_grad).double()
    # E(u) = E(0) + b'u + u'Au/2; column j of A is the change of force along coordinate j.
    hessian = (force[1 : 1 + dim] - force[0]).movedim(0, -1)
    hessian = 0.5 * (hessian + hessian.mT)
    points = u[1 + dim :].double()
    form = energy[0] + (force[0] * points).sum(-1)
    form = form + 0.5 * torch.einsum("knd,nde,kne->kn", points, hessian, points)
    error = ((energy[1 + dim :] - form).abs() / (1 + energy[1 + dim :].abs())).amax(0)
    root, failed = torch.linalg.cholesky_ex(hessian)
    tolerance = 1e-8 if u.dtype == torch.float64 else 1e-3
    if bool(jacobian.any()) or bool(failed.any()) or not bool((error <= tolerance).all()):
        raise ValueError(
            "expected an energy that is quadratic in real-valued latents, as in linear-Gaussian programs, or at most "
            f"2 latent dims for quadrature, got {dim} latent dims and an energy that is not; try pv.IS or pv.AIS"
        )
    lowest = energy[0] - 0.5 * (
        force[0] * torch.cholesky_solve(force[0].unsqueeze(-1), root).squeeze(-1)
    ).sum(-1)
    log_det = 2 * torch.diagonal(root, dim1=-2, dim2=-1).log().sum(-1)
    t = temperatures.to(device).unsqueeze(-1)
    return -lowest / t + 0.5 * dim * (2 * math.pi * t).log() - 0.5 * log_det, error
