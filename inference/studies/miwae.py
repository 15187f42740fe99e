"""Single imputation of the breast-cancer table, half of its values missing, in the setting of MIWAE's authors.

python -m pyrovae.inference.studies.miwae
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import pyrovae as pv
from pyrovae import likelihoods
from pyrovae.inference.running.running import run_script
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.vae import compose
from pyrovae.text import table_lines

GONE = 0.5  # share of values that are held out
FIRST = 1234  # seed of the authors' mask


@dataclass(frozen=True)
class Options:
    """Options of the study; the defaults are those of the authors' notebook."""

    masks: int = 5
    """Draws of what is missing; the first is the authors'."""
    epochs: int = 601
    """Epochs of training."""
    hidden: int = 128
    """Width of both layers of encoder and decoder."""
    latent_dim: int = 10
    """Dimension of z."""
    num_samples: int = 1000
    """Importance samples of each imputation."""
    quiet: bool = False
    """No progress bar."""
    debug: bool = False
    """Show the traceback of an error."""


def run(options: Options) -> None:
    """Prints the mean squared error of what was missing, in Markdown; the columns have variance 1."""
    rows, found = [], []
    for i in range(options.masks):
        whole, x = halved(FIRST + i)
        errors = {
            "MIWAE": miwae(x, options, i),
            "ridge": ridge(x),
            "mean": np.broadcast_to(np.nanmean(x, 0), x.shape),
        }
        found.append({k: float(((v - whole)[np.isnan(x)] ** 2).mean()) for k, v in errors.items()})
        rows.append((str(FIRST + i), *(f"{v:.3f}" for v in found[-1].values())))
    if len(found) > 1:
        figures = [[f[k] for f in found] for k in found[0]]
        rows.append(("mean ± sd", *(f"{np.mean(v):.3f} ± {np.std(v, ddof=1):.3f}" for v in figures)))
    print("\n".join(table_lines(["mask", "MIWAE", "iterative ridge", "mean"], rows)))


def halved(seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The table of scikit-learn, each column centred and scaled, and the same with half of its values missing."""
    from sklearn.datasets import load_breast_cancer

    whole = load_breast_cancer().data
    whole = (whole - whole.mean(0)) / whole.std(0)
    random = np.random.RandomState(seed)
    gone = random.choice(whole.size, int(np.floor(whole.size * GONE)), replace=False)
    x = whole.copy().ravel()
    x[gone] = np.nan
    return whole, x.reshape(whole.shape)


def miwae(x: np.ndarray[Any, Any], options: Options, seed: int) -> np.ndarray[Any, Any]:
    """Posterior means of what is missing, of a model that is trained on the same rows, as in the notebook."""
    data = pv.data.load({s: x.astype(np.float32) for s in ("train", "valid", "test")}, missing="ignore")
    torch.manual_seed(seed)
    vae = compose(
        data,
        Perceptrons((options.hidden,) * 2, activation=torch.nn.Tanh),
        options.latent_dim,
        likelihood=lambda net, d: likelihoods.StudentT(
            net(2), torch.full(d.spec.event_shape, 4.0), min_scale=1e-4, event_shape=d.spec.event_shape
        ),
    )
    rows = torch.tensor(x, dtype=torch.float32)
    fit = pv.fit(
        vae.model, vae.guide, rows, objective=pv.objectives.IWAE(20), epochs=options.epochs, batch_size=64, lr=1e-3,
        seed=seed, progress=not options.quiet,
    )  # fmt: skip
    found = pv.impute(fit.model, fit.guide, rows, num_samples=options.num_samples, num_draws=1, seed=seed)
    return found.mean.double().numpy()


def ridge(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Imputation of column by column from all others, by Bayesian ridge regression (scikit-learn)."""
    import warnings

    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations that have not converged
        found: np.ndarray[Any, Any] = IterativeImputer(random_state=0).fit_transform(x)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "miwae", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
