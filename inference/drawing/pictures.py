"""Pictures of a trained program on its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import pyrovae as pv
from pyrovae import plots
from pyrovae.data import Dataset
from pyrovae.plots.style import plain
from pyrovae.programs import aggregate_posterior

from ..options.pair import Pair
from .arrays import columns_of, example, unlike_pairs
from .classes import class_samples

PictureName = Literal[
    "samples",
    "reconstructions",
    "latent",
    "manifold",
    "traversals",
    "interpolations",
    "neighbours",
    "likely",
    "levels",
    "level_samples",
    "classes",
]
LEVELS: tuple[PictureName, ...] = ("levels", "level_samples")  # of programs with several latent sites
CLASSES: tuple[PictureName, ...] = ("classes",)  # of programs that are given labels
PICTURES: tuple[PictureName, ...] = tuple(n for n in get_args(PictureName) if n not in LEVELS + CLASSES)
QUICK: tuple[PictureName, ...] = ("samples", "reconstructions", "latent")
SHOWN = 12  # images in a row
ENCODED = 10_000  # data of a latent space, at most
PAIRED = 1_000  # draws beside data, at most


@dataclass
class Pictures:
    """The pictures of a pair on a data set.

    Attributes:
        pair: the program, bound to its parameters.
        data: the data set.
        num: draws shown, at most 100 of each kind.
        num_samples: K of the importance-sampled evidence.
        limit: test data whose evidence is taken.
        site: the latent; None: the first continuous vector.
        seed: of all draws.
        weights_hash: of the pair's weights; pictures carry it.
        format: of the files, "png", "pdf" or "svg".
        skipped: picture to the reason why it was not made, filled by `write`.
    """

    pair: Pair
    data: Dataset
    num: int = 60
    num_samples: int = 500
    limit: int = 1000
    site: str | None = None
    seed: int = 0
    weights_hash: str | None = None
    format: str = "png"
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("num", "num_samples", "limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")

    def write(self, out: Path, only: Sequence[PictureName] = PICTURES) -> list[str]:
        """Writes a file for each picture that the program and data allow; returns the file names."""
        written = []
        for name in dict.fromkeys(only):
            try:
                figure = getattr(self, name)()
            except ValueError as error:
                self.skipped[name] = str(error)
                continue
            written.append(f"{name}.{self.format}")
            plots.save(figure, out / written[-1], self.weights_hash)
        return written

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Height and width of an image."""
        shape = self.data.spec.image_shape
        if shape is None:
            raise ValueError(f"expected images, got data of shape {self.data.spec.event_shape}")
        return shape

    @property
    def flat(self) -> bool:
        """Whether data are rows of numbers, and no images."""
        return self.data.spec.image_shape is None and len(self.data.spec.event_shape) == 1

    @cached_property
    def scale(self) -> dict[str, Any]:
        """Values of black and white, as all plots take them."""
        return dict(zip(("vmin", "vmax"), self.data.grey_scale, strict=True))

    @cached_property
    def subset(self) -> Tensor:
        """Indices of the test data whose evidence is taken: some splits come sorted by class."""
        n = len(self.data.test)
        random = torch.Generator().manual_seed(self.seed)
        rows = torch.randperm(n, generator=random)[: self.limit]
        return rows.to(self.data.test.device)

    @cached_property
    def evidence(self) -> pv.Evidence:
        """Importance-sampled evidence of that subset."""
        return pv.evidence(
            *self.pair, *self._test(self.subset), estimators=[pv.IS(self.num_samples)], seed=self.seed
        )

    def samples(self) -> Figure:
        """Draws from the prior and from the aggregate posterior; of rows of numbers, beside the test data."""
        if self.flat:
            return self._pairs()
        shape, num = self.shape, min(self.num, 100)
        prior = pv.simulate(self.pair.model, num, *example(self.data, num), seed=self.seed).mean
        made = aggregate_posterior(
            *self.pair, *self.data.arguments("train"), num_draws=num, seed=self.seed
        ).mean
        return plots.plot_prior_and_posterior(self._as_data(prior), self._as_data(made), shape, **self.scale)

    def reconstructions(self) -> Axes | Figure:
        """Reconstructions of test data, with their evidence where it can be had; of rows, column by column."""
        if self.flat:
            return self._columns()
        shape, rows = self.shape, self._test(self.subset[:SHOWN])
        mean = self._as_data(pv.reconstruct(*self.pair, *rows, seed=self.seed).mean)
        try:
            ev = pv.evidence(*self.pair, *rows, estimators=[pv.IS(self.num_samples)], seed=self.seed)
        except ValueError as error:
            self.skipped["evidence of reconstructions"] = str(error)
            ev = None
        return plots.plot_reconstructions(rows[0], mean, shape, SHOWN, ev=ev, **self.scale)

    def _columns(self) -> Figure:
        rows = self._test(self.subset)
        mean = self._as_data(pv.reconstruct(*self.pair, *rows, seed=self.seed).mean)
        return plots.plot_columns(rows[0], mean, **columns_of(self.data.spec))

    def _pairs(self) -> Figure:
        num = min(len(self.data.test), PAIRED)
        made = pv.simulate(self.pair.model, num, *example(self.data, num), seed=self.seed).x
        return plots.plot_pairs(self.data.test, self._as_data(made), **columns_of(self.data.spec))

    def latent(self) -> Axes:
        """Places of the test data in the latent space."""
        labels = self.data.words_of_labels("test", ENCODED)
        rows = self._test(slice(ENCODED))
        return plots.plot_latent_space(*self.pair, *rows, labels=labels, site=self.site)

    def manifold(self) -> Axes:
        """Manifold of a 2-D latent."""
        return plots.plot_manifold(*self.pair, *self._test(slice(ENCODED)), **self._decoded)

    def traversals(self) -> Axes:
        """Traversals of each latent dimension."""
        return plots.plot_traversals(*self.pair, *self._test(slice(ENCODED)), **self._decoded)

    def interpolations(self) -> Axes:
        """Between test data of different classes, where there are labels."""
        labels = self.data.labels["test"][self.subset] if self.data.labels else None
        pairs = unlike_pairs(len(self.subset), labels)
        chosen = self.subset[[i for pair in pairs for i in pair]]
        return plots.plot_interpolations(
            *self.pair,
            *self._test(chosen),
            pairs=[(2 * i, 2 * i + 1) for i in range(len(pairs))],
            **self._decoded,
        )

    def neighbours(self) -> Axes:
        """Training data nearest to samples."""
        shape = self.shape
        drawn = pv.simulate(self.pair.model, SHOWN, *example(self.data, SHOWN), seed=self.seed)
        samples = self._as_data(drawn.mean)
        # Means are compared with means: the grey levels, where the binary data are draws from them.
        train = self.data.train if self.data.probabilities is None else self.data.probabilities
        return plots.plot_neighbours(samples, train, shape, **self.scale)

    def likely(self) -> Figure:
        """Test data of least and greatest evidence."""
        shape = self.shape
        return plots.plot_likely(self.evidence, shape, name="test data", **self.scale)

    def levels(self) -> Axes:
        """Pictures of which level of a hierarchy holds what, by reconstructions from ever fewer levels."""
        shape, x = self.shape, self.data.test[self.subset[:SHOWN]]
        self._check_several()
        return plots.plot_levels(*self.pair, x, shape, seed=self.seed, **self.scale)

    def level_samples(self) -> Axes:
        """Pictures of what each level decides, by redrawing those below."""
        shape = self.shape
        self._check_several()
        return plots.plot_level_samples(
            self.pair.model, self.data.train, shape, num=SHOWN, seed=self.seed, **self.scale
        )

    def classes(self) -> Axes:
        """Samples of each class, a row for each."""
        shape = self.shape
        rows, names = class_samples(self.pair, self.data, SHOWN, self.seed)
        names = [plain(n) for n in names]
        return plots.plot_images([self._as_data(r) for r in rows], shape, labels=names, **self.scale)

    @cached_property
    def sites(self) -> list[str]:
        """Latent sites, in the model's order."""
        return list(pv.reconstruct(*self.pair, *(t[:1] for t in self.data.arguments("train"))).latents)

    @property
    def _decoded(self) -> dict[str, Any]:
        """Arguments of the plots that decode places of one latent."""
        return {"image_shape": self.shape, "site": self.site, **self.scale}

    def _check_several(self) -> None:
        if len(self.sites) < 2:
            raise ValueError(f"expected several latent sites, got {self.sites}")

    def _test(self, rows: Tensor | slice) -> tuple[Tensor, ...]:
        """`(x, *context)` of some test data."""
        return tuple(t[rows] for t in self.data.arguments("test"))

    def _as_data(self, mean: Tensor) -> Tensor:
        return mean.reshape(len(mean), *self.data.spec.event_shape)


def draw_pictures(pair: Pair, data: Dataset, out: Path, *, format: str = "png") -> list[str]:
    """Writes pictures of samples, reconstructions (of images) and the latent space; returns the names."""
    return Pictures(pair, data, format=format).write(out, QUICK)
