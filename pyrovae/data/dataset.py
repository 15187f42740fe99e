"""The data set that `load` returns."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..pages.tables import html_table
from . import seeds
from .binarisation import bernoulli
from .spec import DataSpec
from .tables.missing import shares_text

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Three splits in memory, and what is known about them.

    Attributes:
        train: Training data `[N, *event_shape]`, float32 and contiguous, within `spec.support`.
        valid: Validation data, likewise.
        test: Test data, likewise.
        spec: Shape, support, binarisation, seed, hash and sizes.
        labels: Split -> int64 classes `[N]`, or None.
        log_evidence: Split -> exact ln p_data(x) `[N]` in nats (float64), where the data know their own
            law, else None.
        parameters: The parameters of that law (float64), or None.
        probabilities: Bernoulli probabilities of the training data `[N, *event_shape]`, where they are
            redrawn every epoch, else None.
        rows: Split -> row `[N]` of each datum in the array or table that was given, where it was shuffled, else
            None: `frame.index[data.rows["test"].numpy()]` names the test data. On the CPU, wherever the data are.
        classes: Words that the labels stand for, where they were words, else None.
        context: Split -> what programs take after x, tensors `[N, ...]` (see `conditioned`), else None.
        names: Split -> names of its rows, where a table has some.
        is_prepared: Whether these are data as parts see them, of `pyrovae.data.prepared`.

    Missing values are NaN, where `spec.missing` says that there may be some; standardisation (`spec.standardization`)
    is left to the parts: the data themselves are always in their own units.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    spec: DataSpec
    labels: dict[str, Tensor] | None = None
    log_evidence: dict[str, Tensor] | None = None
    parameters: dict[str, Tensor] | None = None
    probabilities: Tensor | None = None
    rows: dict[str, Tensor] | None = None
    classes: tuple[str, ...] | None = None
    context: dict[str, tuple[Tensor, ...]] | None = None
    is_prepared: bool = False
    names: dict[str, tuple[str, ...]] | None = None

    def words_of_labels(self, split: str, most: int | None = None) -> list[str] | None:
        """Class of each datum of a split (the first `most`) in words; "unknown" where it is not known; None without.

        Example:
            >>> import pyrovae as pv
            >>> pv.data.load("digits").words_of_labels("test", 3)
            ['3', '4', '2']
        """
        if self.labels is None:
            return None
        found = self.labels[split][:most].tolist()
        return ["unknown" if i < 0 else self.classes[i] if self.classes else str(i) for i in found]

    @property
    def highest(self) -> float:
        """The largest value in all splits."""
        return max(float(x.nan_to_num(-torch.inf).max()) for x in (self.train, self.valid, self.test))

    @property
    def top_count(self) -> int | None:
        """The largest grey level or count in all splits; None for other data."""
        if self.spec.levels is not None:
            return self.spec.levels - 1
        return int(self.highest) if self.spec.support == "nonnegative_integer" else None

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(bool(((x == x.round()) | x.isnan()).all()) for x in (self.train, self.valid, self.test))

    @property
    def grey_scale(self) -> tuple[float, float]:
        """Values of black and white: of the support, else of the training data."""
        if self.spec.levels is not None:
            return 0.0, float(self.spec.levels - 1)
        if self.spec.support in ("binary", "unit_interval"):
            return 0.0, 1.0
        held = self.train[~self.train.isnan()]
        return float(held.min()), float(held.max())

    def split(self, name: str) -> Tensor:
        """Data of the split "train", "valid" or "test".

        Raises:
            ValueError: If `name` is none of these.
        """
        if name not in SPLITS:
            raise ValueError(f"expected a split among {', '.join(SPLITS)}, got {name!r}")
        data: Tensor = getattr(self, name)
        return data

    def arguments(self, name: str) -> tuple[Tensor, ...]:
        """`(x, *context)` of the split "train", "valid" or "test": what a program takes.

        Raises:
            ValueError: If `name` is none of these.
        """
        return (self.split(name), *(() if self.context is None else self.context[name]))

    def row_names(self, name: str) -> tuple[str, ...]:
        """Names of the rows of a split: those that a table gives, else their places in what was given, from 0.

        Raises:
            ValueError: If `name` is no split.
        """
        number = len(self.split(name))
        if self.names is not None:
            return self.names[name]
        return tuple(map(str, range(number) if self.rows is None else self.rows[name].tolist()))

    def epoch(self, epoch: int, seed: int | None = None) -> Tensor:
        """Training data of one epoch `[N, *event_shape]`.

        Under dynamic binarisation this is a Bernoulli draw that depends on `(seed, epoch)` only, so a run
        that resumes at an epoch sees what an uninterrupted one sees (Salakhutdinov and Murray, 2008,
        https://doi.org/10.1145/1390156.1390266, redraw the pixels in this way). It is drawn on the device
        that holds the data; torch's generators differ between kinds of devices. Other data are `train`.

        Args:
            epoch: The epoch, from 0.
            seed: The run's seed; `spec.seed` where None, under which epoch 0 (on the CPU) is `train`.

        Raises:
            ValueError: If `epoch` or `seed` is not an integer >= 0.
        """
        p = self.probabilities
        random = seeds.generator(
            self.spec.seed if seed is None else seed, seeds.TRAIN, epoch, self.train.device
        )
        return self.train if p is None else bernoulli(p, random)

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with every tensor on `device`."""

        def move(values: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
            return None if values is None else {key: x.to(device) for key, x in values.items()}

        return replace(
            self,
            train=self.train.to(device),
            valid=self.valid.to(device),
            test=self.test.to(device),
            labels=move(self.labels),
            log_evidence=move(self.log_evidence),
            parameters=move(self.parameters),
            probabilities=None if self.probabilities is None else self.probabilities.to(device),
            context=None
            if self.context is None
            else {split: tuple(t.to(device) for t in rows) for split, rows in self.context.items()},
        )

    def _repr_html_(self) -> str:
        s = self.spec
        shape = " × ".join(map(str, s.event_shape)) or "scalars"
        image = f", images of {s.image_shape[0]} × {s.image_shape[1]}" if s.image_shape else ""
        rows = [
            *([f"{split} data", f"{n:,}"] for split, n in s.splits.items()),
            ["event shape", shape + image],
            ["support", s.support if s.levels is None else f"{s.levels} grey levels"],
            ["binarisation", s.binarisation or "–"],
            ["seed, hash", f"{s.seed}, {s.hash[:12]}"],
            *([["units", "own; parts see standardised ones"]] if s.standardization else []),
            *([["missing", shares_text(s.missing)]] if s.missing else []),
            ["labels", "yes" if self.labels else "no"],
            *([["given", ", ".join(s.given)]] if s.given else []),
            ["exact ln p(x)", "known" if self.log_evidence else "not known"],
        ]
        return html_table(["", ""], rows, f"Dataset {s.name!r}")

    def __repr__(self) -> str:
        s = self.spec
        sizes = ", ".join(f"{name}={n}" for name, n in s.splits.items())
        units = ", standardised" if s.standardization else ""
        missing = f", missing {shares_text(s.missing)}" if s.missing else ""
        given = f", given {', '.join(s.given)}" if s.given else ""
        return (
            f"Dataset({s.name!r}, {sizes}, event_shape={s.event_shape}, support={s.support!r}, "
            f"binarisation={s.binarisation!r}{units}{missing}{given})"
        )
