"""Questions that a trained program answers: evidence, latents, reconstructions, draws and figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..data import Dataset, Stream
from ..evidence import (
    Evidence,
    Gaps,
    Imputation,
    PosteriorDraws,
    Sandwich,
    embed,
    gaps,
    impute,
    posterior,
    sandwich,
)
from ..evidence.evidence import evidence
from ..programs import Generated, reconstruct, simulate
from ..results import Row, TrainedLike
from .faces import html_face, text_face
from .report import write_page
from .scores import Scores, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 12  # images in a row
ENCODED = 10_000  # data of a latent space, at most


class Trained:
    """Methods that `Fit` and `Run` share: each hands its model, its guide and data on to the function of its name.

    Where no x is given it is the test split of the data set that was trained on. Data of the user's own have none, and
    are to be named: figures on training data are no figures of new data.
    """

    def _about(self) -> dict[str, str]:
        """Description, line by line."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return text_face(type(self).__name__, self._about())

    def _repr_html_(self) -> str:
        try:
            history: list[Row] = self.history  # type: ignore[attr-defined]  # of what has one
        except (OSError, ValueError):
            history = []
        return html_face(type(self).__name__, self._about(), history)

    def evidence(
        self: TrainedLike,
        x: Tensor | None = None,
        *context: Any,
        estimators: Sequence[Any] | None = None,
        **options: Any,
    ) -> Evidence:
        """`pv.evidence` of the trained program.

        Args:
            x, *context: data; default: the test split.
            estimators, **options: as of `pv.evidence`.

        Raises:
            ValueError: no x, and data without a test split; as `pv.evidence`.
        """
        if x is None and isinstance(self.data, Dataset):
            options = {"label": self.data.spec.title("test")} | options
        if isinstance(x, list | tuple) and x and all(hasattr(e, "num_samples") for e in x):
            raise TypeError(f"expected data or nothing before estimators=, got {x!r}; try estimators={x!r}")
        if estimators is not None:
            options["estimators"] = estimators
        return evidence(self.model, self.guide, *_asked(self, x, context), **options)

    def score(self: TrainedLike, x: Any, *context: Any, **options: Any) -> Scores:
        """ln p of each of new rows, with its error and its support, and the least likely of them.

        Args:
            x: new rows: a path, a table (columns by name), an array; see `pv.data.new_rows`.
            *context: of one's own, a row for each of them.
            **options: `num_samples` of IS (1000), or `estimators` and others of `pv.evidence`.

        Raises:
            ValueError: rows that are not in the form of the training data; as `pv.evidence`.
        """
        return score(self, x, *context, **options)

    def embed(
        self: TrainedLike, x: Tensor | None = None, *context: Any, **options: Any
    ) -> Tensor | dict[str, Tensor]:
        """`pv.embed`: means of the latents given each datum, of the test split by default."""
        return embed(self.model, self.guide, *_asked(self, x, context), **options)

    def reconstruct(self: TrainedLike, x: Tensor | None = None, *context: Any, **options: Any) -> Generated:
        """`pv.reconstruct`: the data drawn again from where the guide puts them, of the test split by default."""
        return reconstruct(self.model, self.guide, *_asked(self, x, context), **options)

    def posterior(
        self: TrainedLike, x: Tensor | None = None, *context: Any, **options: Any
    ) -> PosteriorDraws:
        """`pv.posterior`: weighed draws of the latents given each datum, of the test split by default."""
        return posterior(self.model, self.guide, *_asked(self, x, context), **options)

    def impute(self: TrainedLike, x: Tensor | None = None, *context: Any, **options: Any) -> Imputation:
        """`pv.impute`: draws, means and intervals of missing values, of the test split by default."""
        return impute(self.model, self.guide, *_asked(self, x, context), **options)

    def sample(self: TrainedLike, num_data: int = 100, **options: Any) -> Generated:
        """`pv.simulate`: draws from the prior; contexts are those of the training data, in turn."""
        return simulate(self.model, num_data, *training_rows(self.data), **options)

    def gaps(self: TrainedLike, x: Tensor | None = None, *context: Any, **options: Any) -> Gaps:
        """`pv.gaps`: where the ELBO loses its nats, on the test split by default."""
        return gaps(self.model, self.guide, *_asked(self, x, context), **options)

    def sandwich(self: TrainedLike, simulate: int = 200, **options: Any) -> Sandwich:
        """`pv.sandwich`: bounds on both sides, on data simulated from the model."""
        return sandwich(self.model, self.guide, *training_rows(self.data), simulate=simulate, **options)

    def plot_training(self: TrainedLike) -> Figure:
        """Training curves: `plots.plot_training`, of a Boltzmann machine `plots.plot_phases`."""
        return training_figure(self.history, self.best_epoch)

    def plot_samples(
        self: TrainedLike, num_data: int = 60, image_shape: tuple[int, int] | None = None, seed: int = 0
    ) -> Axes:
        """Means of draws from the prior, as images: `plots.plot_samples`."""
        from .. import plots

        shape = _shape(self.data, image_shape)
        made = simulate(self.model, num_data, *training_rows(self.data), seed=seed)
        return plots.plot_samples(made.mean, shape, **_scale(self.data))

    def plot_reconstructions(
        self: TrainedLike,
        x: Tensor | None = None,
        *context: Any,
        image_shape: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> Axes:
        """The first of the data above what the program makes of them: `plots.plot_reconstructions`."""
        from .. import plots

        shape = _shape(self.data, image_shape)
        given = _asked(self, x, context)
        made = reconstruct(self.model, self.guide, *given, seed=seed)
        first = given[0][:SHOWN]
        return plots.plot_reconstructions(
            first, made.mean[:SHOWN].reshape(first.shape), shape, SHOWN, **_scale(self.data)
        )

    def plot_latent(
        self: TrainedLike, x: Tensor | None = None, *context: Any, labels: Any = None, site: str | None = None
    ) -> Axes:
        """Places of the data in the latent space, coloured by class: `plots.plot_latent_space`."""
        from .. import plots

        if x is None and isinstance(self.data, Dataset):
            labels = self.data.words_of_labels("test", ENCODED) if labels is None else labels
            x, *context = (t[:ENCODED] for t in self.data.arguments("test"))  # type: ignore[assignment]
        given = _asked(self, x, tuple(context))
        return plots.plot_latent_space(self.model, self.guide, *given, labels=labels, site=site)

    def report(
        self,
        path: str | os.PathLike[str],
        *given: Any,
        image_shape: tuple[int, int] | None = None,
        **options: Any,
    ) -> Path:
        """Writes one HTML page, without network or scripts: what it is, evidence, figures, configuration.

        Args:
            path: of the page.
            *given: `(x, *context)`; default: the test split.
            image_shape: height and width, where the data are images and do not say so.
            **options: of `evidence`.

        Raises:
            ValueError: as `evidence`; OSError: the page cannot be written.
        """
        me: Any = self
        ev = me.evidence(*given, **options)
        shape = image_shape or (me.data.spec.image_shape if isinstance(me.data, Dataset) else None)
        figures = {
            "Estimates": lambda: ev.plot(shape),
            "Reconstructions": lambda: me.plot_reconstructions(*given, image_shape=image_shape),
            "Samples": lambda: me.plot_samples(image_shape=image_shape),
            "Latent space": lambda: _latent(me, given, ev),
            "Least and most likely data": lambda: _likely(ev, me.data, image_shape),
        }
        folder = getattr(self, "folder", None)
        source = "fit = pv.fit(...)" if folder is None else f"fit = pv.load({str(folder)!r})"
        kinds = sorted({type(e).__name__ for e in options.get("estimators") or ()})
        wanted = f"from pyrovae import {', '.join(kinds)}\n" if kinds else ""
        shown = {k: repr(v) for k, v in options.items() if k != "progress"}
        asked = (", x" if given else "") + "".join(f", {key}={value}" for key, value in shown.items())
        again = f"import pyrovae as pv\n{wanted}\n{source}\nfit.report({os.fspath(path)!r}{asked})"
        config = getattr(self, "config", None) or {"best_epoch": me.best_epoch, "epochs": len(me.history)}
        title = f"{type(self).__name__} of {ev.attributes.get('label') or 'data of your own'}"
        parts = self._repr_html_(), ev._repr_html_(), figures, config, again, ev.attributes
        return write_page(path, title, *parts)


def _latent(trained: TrainedLike, given: tuple[Any, ...], ev: Evidence) -> str:
    """Latent space as a part of a page; each datum says its ln p(x) when it is pointed at."""
    from ..plots.latents.pointed import latent_svg

    rows = given or _asked(trained, None, ())
    own = not given and isinstance(trained.data, Dataset)
    labels = trained.data.words_of_labels("test") if own else None
    best = ev.best
    values = [f"ln p(x) {best.symbol} {v:.2f} nats ({best.name})" for v in best.per_datum.tolist()]
    said = "<p>Point at a datum to read its number, its class and ln p(x).</p>"
    return said + latent_svg(trained.model, trained.guide, *rows, labels=labels, texts=values)


def _likely(ev: Evidence, data: Any, image_shape: tuple[int, int] | None) -> Any:
    from .. import plots

    return plots.plot_likely(ev, _shape(data, image_shape), name="data", **_scale(data))


def training_figure(history: list[Row], best_epoch: int | None) -> Figure:
    """Curves of the figures that a history has.

    Raises:
        ValueError: a history without an epoch.
    """
    from .. import plots

    if not history:
        raise ValueError("expected a history of at least one epoch, got none")
    draw: Any = plots.plot_training if "elbo" in history[0] else plots.plot_phases
    figure: Figure = draw(history, best_epoch=best_epoch or None)
    return figure


def training_rows(data: Any) -> tuple[Any, ...]:
    """`(x, *context)` that a program is trained on; of a stream those that are in memory."""
    if isinstance(data, Stream):
        return tuple(data.sample)
    if isinstance(data, Dataset):
        return data.arguments("train")
    if hasattr(data, "train"):
        return (data.train,)
    return (data,) if isinstance(data, Tensor) else tuple(data)


def _asked(trained: TrainedLike, x: Tensor | None, context: tuple[Any, ...]) -> tuple[Any, ...]:
    """`(x, *context)` of a question: what is given, or the test split."""
    if x is not None:
        return (x, *context)
    test = getattr(trained.data, "test", None)
    if not isinstance(test, Tensor):
        raise ValueError(
            "expected x, or a program trained on a data set with a test split, got one trained on a "
            f"{type(trained.data).__name__} and no x; try it with data that it was not trained on"
        )
    return trained.data.arguments("test") if isinstance(trained.data, Dataset) else (test,)


def _shape(data: Any, given: tuple[int, int] | None) -> tuple[int, int]:
    shape = given or (data.spec.image_shape if isinstance(data, Dataset) else None)
    if shape is None:
        raise ValueError(
            "expected image_shape=(height, width) for data that do not say that they are images, got None"
        )
    return shape


def _scale(data: Any) -> dict[str, Any]:
    """Values of black and white, as plots take them."""
    return dict(zip(("vmin", "vmax"), data.grey_scale, strict=True)) if isinstance(data, Dataset) else {}
