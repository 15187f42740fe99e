"""Two tables from end to end: anomalies of a standardised one, and what is missing of one of several kinds of columns.

python -m pyrovae.inference.studies.tables anomalies --out docs/figures
python -m pyrovae.inference.studies.tables missing --out docs/figures
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

import pyrovae as pv
from pyrovae import likelihoods, plots
from pyrovae.data import imputed_frames
from pyrovae.inference.options.machine import FormatName
from pyrovae.inference.running.running import run_script
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.vae import compose
from pyrovae.text import table_lines

KINDS = {
    "income": "positive",
    "visits": "count",
    "smoker": "binary",
    "grade": {"role": "ordinal", "order": ["low", "mid", "high"]},
}
GONE = 0.2  # share of values that are held out


@dataclass(frozen=True)
class Options:
    """Options of the two walks."""

    walk: Annotated[Literal["anomalies", "missing"], tyro.conf.Positional]
    """Which one."""
    out: Path = Path("runs/tables")
    """Folder of the figure."""
    epochs: int = 400
    """Epochs of training, at most."""
    rows: int = 2000
    """Rows of the simulated table of `missing`."""
    num_samples: int = 2000
    """Importance samples K for each row."""
    format: FormatName = "png"
    """Format of pictures."""
    seed: int = 0
    """Seed of split, weights and draws."""
    quiet: bool = False
    """No progress bar."""
    debug: bool = False
    """Show the traceback of an error."""


def run(options: Options) -> None:
    """Prints the tables in Markdown, and draws the figure."""
    options.out.mkdir(parents=True, exist_ok=True)
    walk = anomalies if options.walk == "anomalies" else missing
    lines, figure = walk(options)
    print("\n".join(lines))
    plots.save(figure, options.out / f"table_{options.walk}.{options.format}")


def cancer(seed: int) -> tuple[dict[str, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Splits of the breast-cancer table of scikit-learn: benign rows to train on; the others, all malignant ones among
    them, to test; whether each of those is malignant, and its row."""
    from sklearn.datasets import load_breast_cancer

    whole = load_breast_cancer(as_frame=True)
    frame, malignant = whole.data, whole.target.to_numpy() == 0
    benign = np.random.default_rng(seed).permutation(np.flatnonzero(~malignant))
    train, valid, rest = np.split(benign, [230, 270])
    test = np.sort(np.concatenate([rest, np.flatnonzero(malignant)]))
    splits = {n: frame.iloc[rows] for n, rows in (("train", train), ("valid", valid), ("test", test))}
    return splits, malignant[test], test


def anomalies(options: Options) -> tuple[list[str], Any]:
    """Rows of the least ln p under a model of benign tumours."""
    from sklearn.metrics import roc_auc_score

    splits, malignant, rows = cancer(options.seed)
    # Sizes and their errors are skewed, and the logarithm makes them less so; some rows have a concavity of 0.
    log = [c for c in splits["train"].columns if "conc" not in c]
    data = pv.data.load(splits, standardize=True, log=log)
    torch.manual_seed(options.seed)
    vae = compose(
        data,
        Perceptrons((64,)),
        8,
        likelihood=lambda net, d: likelihoods.Gaussian(
            net(1), torch.ones(d.spec.event_shape), learn_scale=True, event_shape=d.spec.event_shape
        ),
    )
    fit = pv.fit(
        vae.model, vae.guide, data, epochs=options.epochs, patience=60, batch_size=32, seed=options.seed,
        progress=not options.quiet,
    )  # fmt: skip
    ev = fit.evidence(estimators=[pv.ELBO(100), pv.IS(options.num_samples)], seed=options.seed)
    e = ev["IS"]
    score = e.per_datum.numpy()
    gaussian = normal_scores(data)
    lines = [
        f"ln p(x) {e.symbol} {e.log_evidence:.2f} ± {e.se_data:.2f} (data) ± {e.se_mc:.2f} (MC) nats, "
        f"{-e.log_evidence / data.test.shape[1] / np.log(2):.3f} bits/dim; {100 * e.unreliable_share:.0f} % of rows "
        "without a two-sided interval",
        f"AUC of malignant against benign rows, by least ln p: VAE {roc_auc_score(malignant, -score):.3f}, "
        f"by ELBO {roc_auc_score(malignant, -ev['ELBO'].per_datum.numpy()):.3f}, "
        f"one normal law (full covariance) {roc_auc_score(malignant, -gaussian):.3f}, "
        f"whose mean ln p is {gaussian.mean():.2f}",
        f"mean ln p of benign rows alone: VAE {score[~malignant].mean():.2f}, normal law "
        f"{gaussian[~malignant].mean():.2f}",
        "",
    ]
    far, by = farthest(fit, data)
    order = score.argsort()[:10]
    body = [
        (
            str(rows[i]),
            "malignant" if malignant[i] else "benign",
            f"{score[i]:.1f}",
            f"{float(e.variance[i]) ** 0.5:.2f}",
            "yes" if bool(e.reliable[i]) else "no",
            far[i],
            f"{by[i]:+.1f}",
        )
        for i in order
    ]
    heads = ["row", "kind", "ln p(x) [nats]", "± MC", "supported", "farthest column", "by [sd]"]
    lines += table_lines(heads, body, (1, 4, 5))
    figure = plots.plot_scores({"benign": score[~malignant], "malignant": score[malignant]})
    return lines, figure


def normal_scores(data: Any) -> np.ndarray[Any, Any]:
    """ln N(x; mean, covariance) of the training rows, for the test rows: what a model without latents says."""
    from scipy.stats import multivariate_normal

    units = data.spec.standardization
    train, test = (units.forward(x.double()).numpy() for x in (data.train, data.test))
    inner = multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(test)
    found: np.ndarray[Any, Any] = inner + units.log_jacobian(data.test.double()).sum(-1).numpy()
    return found


def farthest(fit: Any, data: Any) -> tuple[list[str], list[float]]:
    """Name of the column of each test row that is farthest from its reconstruction, and how far, in sd of training."""
    units = data.spec.standardization
    off = units.forward(data.test) - units.forward(fit.reconstruct().mean)
    most = off.abs().argmax(1)
    return [data.spec.columns[i] for i in most], off[torch.arange(len(off)), most].tolist()


def simulated(rows: int, seed: int) -> Any:
    """A table of two hidden factors, of which every kind of column tells something."""
    import pandas as pd

    random = np.random.default_rng(seed)
    z = random.normal(size=(rows, 2))

    def words(x: np.ndarray[Any, Any], names: Sequence[str]) -> np.ndarray[Any, Any]:
        return np.array(names)[np.digitize(x + 0.4 * random.normal(size=rows), [-0.5, 0.5])]

    return pd.DataFrame(
        {
            "age": 50 + 10 * z[:, 0] + 4 * random.normal(size=rows),
            "pressure": 120 + 8 * z[:, 0] + 6 * z[:, 1] + 5 * random.normal(size=rows),
            "income": np.exp(9 + 0.8 * z[:, 1] + 0.3 * random.normal(size=rows)),
            "visits": random.poisson(np.exp(1.2 + 0.6 * z[:, 0])),
            "smoker": np.where(1.5 * z[:, 1] + random.logistic(size=rows) > 0, "yes", "no"),
            "city": words(z[:, 0], ["Bern", "Graz", "Lyon"]),
            "grade": words(z[:, 1], ["low", "mid", "high"]),
        }
    )


def missing(options: Options) -> tuple[list[str], Any]:
    """Imputation of a table against values that were held out."""
    whole = simulated(options.rows, options.seed)
    gone = np.random.default_rng(options.seed + 1).random(whole.shape) < GONE
    table = whole.astype(object).mask(gone, None)
    data = pv.data.load(table, columns=KINDS, standardize=True, missing="ignore", seed=options.seed)
    torch.manual_seed(options.seed)
    vae = compose(data, Perceptrons((64,)), 4)
    fit = pv.fit(
        vae.model, vae.guide, data, objective=pv.objectives.IWAE(8), epochs=options.epochs, patience=40, batch_size=64,
        seed=options.seed, progress=not options.quiet,
    )  # fmt: skip
    e = fit.evidence(estimators=[pv.IS(options.num_samples)], seed=options.seed)["IS"]
    found = fit.impute(
        num_samples=options.num_samples, num_draws=min(200, options.num_samples), seed=options.seed
    )
    assert data.rows is not None
    rows = data.rows["test"].numpy()
    filled, _ = imputed_frames(found, data.spec, list(rows))
    truth, train = whole.iloc[rows], table.iloc[data.rows["train"].numpy()]
    some = found.missing.flatten(1).any(1)
    lines = [
        f"ln p(x observed) {e.symbol} {e.log_evidence:.3f} ± {e.se_data:.3f} (data) ± {e.se_mc:.3f} (MC) nats; "
        f"{int(found.missing.sum())} of {found.missing.numel()} values of the test rows imputed; k-hat > 0.7 in "
        f"{100 * float((found.khat[some] > 0.7).double().mean()):.1f} % of rows",
        "",
    ]
    body, panels = [], {}
    for j, name in enumerate(data.spec.columns or ()):
        hidden = found.missing[:, j].numpy()
        true = truth[name].to_numpy()[hidden]
        if name in ("smoker", "city", "grade"):
            right = float((filled[name].to_numpy()[hidden] == true).mean())
            usual = float((true == train[name].mode()[0]).mean())
            body.append((name, str(hidden.sum()), f"{right:.3f} right", f"{usual:.3f} right", ""))
            continue
        own = true.astype(float)
        low, mean, high = (getattr(found, w)[:, j].numpy()[hidden] for w in ("low", "mean", "high"))
        inside = float(((low <= own) & (own <= high)).mean())
        of = np.log if name == "income" else np.asarray
        known = of(train[name].dropna().to_numpy().astype(float))
        error, usual = (
            float(np.sqrt(((of(guess) - of(own)) ** 2).mean()) / known.std())
            for guess in (mean, np.full(len(own), np.exp(known.mean()) if name == "income" else known.mean()))
        )
        body.append(
            (
                name,
                str(hidden.sum()),
                f"{error:.3f} sd",
                f"{usual:.3f} sd",
                f"{inside:.3f} ± {(0.9 * 0.1 / len(own)) ** 0.5:.3f}",
            )
        )
        panels[name if name != "income" else "ln income"] = tuple(of(a) for a in (own, mean, low, high))
    heads = ["column", "held out", "imputed", "by mean or most frequent", "coverage of 90 % intervals"]
    return [*lines, *table_lines(heads, body)], plots.plot_imputations(panels)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "tables", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
