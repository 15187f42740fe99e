"""Counts of a known negative-binomial factor model, as of single cells: models of them against their own law.

`python -m pyrovae.inference.studies.count_factors --out runs/counts` writes counts.npz, counts.md and counts.png.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from scipy.special import logsumexp
from scipy.stats import nbinom
from torch import Tensor

import pyrovae as pv
from pyrovae import plots
from pyrovae.data import Dataset
from pyrovae.files import check_writable, write_whole
from pyrovae.inference.options.machine import FormatName, MachineOptions
from pyrovae.inference.options.options import ModelOptions
from pyrovae.inference.options.parts import build_vae
from pyrovae.inference.running.running import console, run_script
from pyrovae.plots.style import LINES, canvas
from pyrovae.text import table_lines

LIKELIHOODS = ("negative-binomial", "zero-inflated-negative-binomial", "poisson")
SIGNS = ("o", "^", "x")
DISPERSION = 2.0  # r: the variance is mean + mean^2 / r
PAIRS = 1 << 22  # (draw, count) pairs at once


@dataclass(frozen=True)
class FactorLaw:
    """x_g ~ NB(mean exp(W_g z + b_g), r), z ~ N(0, I): counts of genes that few factors move.

    Attributes:
        weight: W `[genes, factors]`.
        bias: b `[genes]`.
        dispersion: r.
    """

    weight: np.ndarray
    bias: np.ndarray
    dispersion: float = DISPERSION

    @classmethod
    def random(cls, genes: int, factors: int, seed: int) -> FactorLaw:
        """One whose genes have means from about 0.3 to 8."""
        rng = np.random.default_rng(seed)
        return cls(0.5 * rng.normal(size=(genes, factors)), 0.4 + 0.8 * rng.normal(size=genes))

    def draw(self, cells: int, seed: int) -> np.ndarray:
        """Counts `[cells, genes]`."""
        rng = np.random.default_rng((seed, 1))
        mean = np.exp(rng.normal(size=(cells, self.weight.shape[1])) @ self.weight.T + self.bias)
        return rng.poisson(rng.gamma(self.dispersion, mean / self.dispersion))

    def log_density(
        self, x: np.ndarray, num_samples: int = 1000, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """ln p(x) of each cell and its standard error, nats.

        By importance sampling from a t law with 8 degrees of freedom at the mode of p(z|x), which Newton's steps find:
        ln p(x, z) is concave. Its tails are heavier than the posterior's, and its weights bounded.
        """
        rng, factors = np.random.default_rng((seed, 2)), self.weight.shape[1]
        values, errors = np.empty(len(x)), np.empty(len(x))
        for n, row in enumerate(x.astype(float)):
            z, precision = self._mode(row)
            factor = np.linalg.cholesky(np.linalg.inv(precision))
            scale = np.sqrt(8 / rng.chisquare(8, num_samples))
            white = rng.normal(size=(num_samples, factors)) * scale[:, None]
            draws = z + white @ factor.T
            log_q = _log_t(white, 8) - np.log(np.diag(factor)).sum()
            log_w = self._log_joint(row, draws) - log_q
            values[n] = logsumexp(log_w) - np.log(num_samples)
            w = np.exp(log_w - log_w.max())
            errors[n] = w.std(ddof=1) / w.mean() / np.sqrt(num_samples)
        return values, errors

    def _mode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mode of p(z | x), and minus the Hessian of ln p(x, z) there."""
        W, r = self.weight, self.dispersion
        z = np.zeros(W.shape[1])
        value = self._log_joint(x, z[None])[0]
        for _ in range(100):
            mean = np.exp(W @ z + self.bias)
            gradient = W.T @ (r * (x - mean) / (r + mean)) - z
            precision = np.eye(len(z)) + W.T @ (W * ((r + x) * r * mean / (r + mean) ** 2)[:, None])
            step = np.linalg.solve(precision, gradient)
            if np.abs(step).max() < 1e-10:
                break
            size = 1.0
            while (new := self._log_joint(x, (z + size * step)[None])[0]) < value and size > 1e-8:
                size /= 2
            z, value = z + size * step, new
        return z, precision

    def _log_joint(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """ln p(x, z) of draws `[K, factors]`."""
        out = np.empty(len(z))
        size = max(1, PAIRS // len(x))
        for i in range(0, len(z), size):
            part = z[i : i + size]
            mean = np.exp(part @ self.weight.T + self.bias)
            out[i : i + size] = nbinom.logpmf(
                x, self.dispersion, self.dispersion / (self.dispersion + mean)
            ).sum(1)
        return out - 0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * np.log(2 * np.pi)


def _log_t(white: np.ndarray, df: int) -> np.ndarray:
    """ln density of a multivariate t law with unit scale."""
    from scipy.special import gammaln

    d = white.shape[1]
    constant = gammaln((df + d) / 2) - gammaln(df / 2) - d / 2 * np.log(df * np.pi)
    return constant - (df + d) / 2 * np.log1p((white**2).sum(1) / df)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of count_factors."""

    out: Path = Path("runs/counts")
    """Folder of counts.npz, counts.md and counts.png."""
    cells: int = 500
    """Cells, of which a fifth is for testing."""
    genes: int = 2000
    """Genes."""
    factors: int = 3
    """Factors of the law."""
    latent_dim: int = 3
    """Latents of the models."""
    hidden: int = 64
    """Width of their networks."""
    epochs: int = 200
    """Passes over the training cells, with the best epoch kept."""
    num_samples: int = 2000
    """Importance samples a cell."""
    seed: int = 0
    """Seed of law, cells, weights and noise."""
    format: FormatName = "png"
    """Format of pictures."""
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Simulates, trains a model of each likelihood, and tells how far each is from the law."""
    options.out.mkdir(parents=True, exist_ok=True)
    check_writable(options.out)
    law = FactorLaw.random(options.genes, options.factors, options.seed)
    x = law.draw(options.cells, options.seed)
    np.savez_compressed(options.out / "counts.npz", x=x.astype(np.int32))
    data = pv.data.load({"x": x}, seed=options.seed)
    exact, error = law.log_density(data.test.numpy().astype(int), options.num_samples, options.seed)
    rows, differences = [], {}
    for name in LIKELIHOODS:
        fit = fitted(name, data, options)
        kl = pv.divergences.forward_kl(
            data,
            fit.model,
            fit.guide,
            log_density=lambda _: torch.from_numpy(exact),
            estimator=pv.IS(options.num_samples),
            seed=options.seed,
            progress=False,
        )
        differences[name] = kl
        rows.append(
            [
                name,
                f"≥ {kl.estimate.log_evidence:,.1f}",
                f"≤ {kl.value:.1f} ± {kl.se_data:.1f}",
                f"{fit.best_epoch}",
            ]
        )
    own = f"{exact.mean():,.1f} ± {np.sqrt((error**2).sum()) / len(error):.2f} (Monte Carlo)"
    text = "\n".join(
        [
            *table_lines(("likelihood", "ln p(x), IS", "KL(law ‖ model)", "epoch kept"), rows, (0,)),
            "",
            f"{options.cells:,} cells x {options.genes:,} genes; {len(exact)} test cells, nats per cell; the law "
            f"itself: {own}. IS is a lower bound of ln p, so that the KL is at most what is written, up to its error.",
        ]
    )
    print(text)
    write_whole(options.out / "counts.md", text + "\n")
    plots.save(picture(differences, exact), options.out / f"counts.{options.format}")
    console.print(f"{options.out}: counts.npz, counts.md, counts.{options.format}", highlight=False)


def fitted(name: str, data: Dataset, options: Options) -> pv.Fit:
    """A VAE of this likelihood, trained."""
    sizes: dict[str, Any] = {
        "likelihood": name,
        "latent_dim": options.latent_dim,
        "hidden": (options.hidden,),
    }
    with pv.seed(options.seed):
        vae = build_vae(ModelOptions(**sizes), data)
    return pv.fit(
        vae.model,
        vae.guide,
        data,
        epochs=options.epochs,
        batch_size=64,
        lr=pv.Exponential(5e-3, 5e-4, options.epochs),
        beta=pv.Warmup(max(1, options.epochs // 10)),
        seed=options.seed,
        compile=False,
        progress=not options.machine.quiet,
    )


def picture(found: dict[str, Any], exact: np.ndarray) -> Any:
    """ln p of each test cell under its own law against that under each model."""
    with canvas(None, 4.2, 3.4) as ax:
        for (name, kl), sign, colour in zip(found.items(), SIGNS, LINES, strict=False):
            values = exact - _values(kl.per_datum)
            label = f"{name}: KL ≤ {kl.value:.0f} nats"
            ax.plot(exact, values, sign, color=colour, markerfacecolor="none", markersize=4, label=label)
        ends = [exact.min(), exact.max()]
        ax.plot(ends, ends, color="0.5", lw=1, label="the law itself")
        ax.set(
            xlabel="ln p(x) under the law of the data [nats]",
            ylabel="ln p(x) under a trained model, IS [nats]",
        )
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        return ax.figure


def _values(t: Tensor) -> np.ndarray:
    return t.detach().cpu().numpy()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "count_factors", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
