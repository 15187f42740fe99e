"""Scores of new rows: ln p of each, with its error and what it supports, and the rows that are least likely."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Dataset, DataSpec, NewRows, new_rows
from ..data.given.own import own_context
from ..data.spec import KNOWN
from ..evidence import IS, ColumnTerms, Estimate, Evidence, column_terms
from ..evidence.evidence import evidence
from ..evidence.notes import why_unsupported
from ..files import replacing, write_whole
from ..pages.tables import html_table
from ..results import TrainedLike
from .data import spec_of, training_rows

SUFFIXES = (".csv", ".parquet")
SHOWN = 10


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """Scores of rows, in their order.

    Attributes:
        names: of the rows.
        evidence: of all of them.
        notes: what was done to bring the rows into form.
        terms: terms of each row's ELBO by the columns of a table of several kinds; None for other data.
    """

    names: tuple[str, ...]
    evidence: Evidence
    notes: tuple[str, ...] = ()
    terms: ColumnTerms | None = None

    @property
    def estimate(self) -> Estimate:
        """The estimate that ranks the rows: the evidence's `best`."""
        return self.evidence.best

    @property
    def log_evidence(self) -> Tensor:
        """ln p(x_n) `[N]`, nats."""
        return self.estimate.per_datum

    def columns(self) -> dict[str, list[Any]]:
        """Columns of the table that is written.

        row; log_evidence (nats); se, its Monte-Carlo standard error; khat and ess, where there are weights; supported,
        whether the draws support a statement on both sides (where not, ln p is likely higher than what is written);
        a column for each other estimator, by its name; and, of a table of several kinds of columns, E_q ln p of each
        column given z, and the KL, which together make an ELBO of the row, of draws of their own: it differs from the
        column ELBO by Monte-Carlo error.
        """
        e = self.estimate
        found: dict[str, list[Any]] = {
            "row": list(self.names),
            "log_evidence": e.per_datum.tolist(),
            "se": e.variance.sqrt().tolist(),
        }
        for name, values in (("khat", e.khat), ("ess", e.ess)):
            if values is not None:
                found[name] = values.tolist()
        found["supported"] = e.reliable.tolist()
        others = {n: o for n, o in self.evidence.estimates.items() if o is not e}
        found |= {n: o.per_datum.tolist() for n, o in others.items()}
        return found if self.terms is None else found | self.terms.to_columns()

    def to_pandas(self) -> Any:
        """The same as a data frame of pandas, its index the rows' names."""
        import pandas as pd

        return pd.DataFrame(self.columns()).set_index("row")

    def worst(self, number: int = SHOWN) -> list[int]:
        """Places of the rows of least ln p, the least first; a row whose figure is no number comes first of all."""
        order = torch.nan_to_num(self.log_evidence, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        return order.argsort(stable=True)[:number].tolist()

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Writes a row for each row to a `.csv` or `.parquet` file, whole or not at all.

        Raises:
            ValueError: another suffix.
            ImportError: no pyarrow for `.parquet`.
            OSError: it cannot be written.
        """
        return write_columns(path, self.columns())

    def table(self, number: int = SHOWN) -> str:
        """Lines of text: the rows of least ln p."""
        heads, rows = self._rows(number)
        wide = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)]
        lines = [
            "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(r, wide, strict=True)))
            for r in (heads, *rows)
        ]
        return "\n".join([self.title, *lines, *self.remarks])

    @property
    def title(self) -> str:
        """Name and unit of the figures."""
        e = self.estimate
        kind = "" if e.measure is None else e.measure.label
        given = self.evidence.attributes.get("given")
        what = f"ln p(x | {given})" if given else "ln p(x)"
        return f"{what} {e.symbol} {e.name} (K = {e.num_samples:,}), nats{kind}, {len(self.names):,} rows"

    @property
    def remarks(self) -> list[str]:
        """Notes on the figures."""
        bad = int((~self.estimate.reliable).sum())
        remarks = list(self.notes)
        if bad:
            e = self.estimate
            why = "" if e.ess is None or e.khat is None else f" ({why_unsupported(e)})"
            remarks.append(
                f"{bad:,} of {len(self.names):,} rows are not supported by their draws{why}: their ln p is a "
                "lower bound, and may be higher; try more --num-samples, or --estimators adaptive"
            )
        return remarks

    def _rows(self, number: int) -> tuple[list[str], list[list[str]]]:
        columns = self.columns()
        places = self.worst(number)
        hidden = {"ess"} if self.terms is None else {"ess", *self.terms.to_columns()}
        shown = [n for n in columns if n not in hidden]
        rows = [[_cell(columns[n][i]) for n in shown] for i in places]
        return [n.replace("_", " ") for n in shown], rows

    def _repr_html_(self) -> str:
        return html_table(*self._rows(SHOWN), self.title, self.remarks)

    def __repr__(self) -> str:
        return f"Scores({self.title}; least likely: {', '.join(self.names[i] for i in self.worst(3))})"


def score(
    trained: TrainedLike,
    source: Any,
    *context: Any,
    estimators: Sequence[Any] | None = None,
    num_samples: int = 1000,
    **options: Any,
) -> Scores:
    """ln p of new rows under a trained program: `Fit.score`, `Run.score`.

    Args:
        trained: a `Fit` or `Run`.
        source: a path, table, array or mapping, as `pv.data.new_rows` takes it.
        *context: of one's own, a row for each row of `source`, for programs that were trained with such
            (`pv.data.with_context`).
        estimators: as of `pv.evidence`; default: IS.
        num_samples: of that default.
        **options: further ones of `pv.evidence`.

    Raises:
        FileNotFoundError, ValueError: as `pv.data.new_rows` and `pv.evidence`.
    """
    rows = rows_for(trained, source, context)
    asked = [IS(num_samples)] if estimators is None else estimators
    found = evidence(trained.model, trained.guide, *rows.arguments, estimators=asked, **options)
    given = spec_for(trained).conditions
    if given:
        found.attributes["given"] = given
    terms = terms_of(trained, *rows.arguments, seed=int(options.get("seed", 0)))
    return Scores(rows.names, found, rows.notes, terms)


def terms_of(trained: TrainedLike, x: Tensor, *context: Tensor, seed: int = 0) -> ColumnTerms | None:
    """Terms of the ELBO by the columns of a table of several kinds; None for other data and where they have none.

    None, too, where labels are summed out, and of programs whose columns depend on each other given z.
    """
    spec = spec_for(trained)
    if spec.support != "mixed" or KNOWN in spec.given:
        return None
    try:
        return column_terms(trained.model, trained.guide, x, *context, columns=spec.columns, seed=seed)
    except ValueError:
        return None


def rows_for(trained: TrainedLike, source: Any, context: Sequence[Any] = ()) -> NewRows:
    """New rows in the form in which a trained program takes them, on its device.

    Raises:
        FileNotFoundError, ValueError: as `pv.data.new_rows`; a context of another form than that of the training data.
    """
    # The data name their classes where a run of before they had names does not.
    spec = trained.data.spec if isinstance(trained.data, Dataset) else spec_for(trained)
    found = new_rows(source, replace(spec, given=()) if context else spec)
    if context:
        own = own_context(context, training_rows(trained.data)[1:], len(found.names))
        found = replace(found, arguments=(*found.arguments, *own))
    modules: Any = trained.modules  # type: ignore[attr-defined]
    device = next((p.device for m in modules for p in m.parameters()), torch.device("cpu"))
    return NewRows(tuple(t.to(device) for t in found.arguments), found.names, found.notes)


def spec_for(trained: TrainedLike) -> DataSpec:
    """Description of the data that a program was trained on."""
    own = getattr(trained, "spec", None)
    return own if isinstance(own, DataSpec) else spec_of(trained.data)


def write_columns(path: str | os.PathLike[str], columns: dict[str, list[Any]]) -> Path:
    """Writes columns of one length to a `.csv` or `.parquet` file, whole or not at all; raises as `Scores.write`."""
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"expected a file ending in {' or '.join(SUFFIXES)}, got {target}")
    if target.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        write_whole(target, text.getvalue())
        return target
    try:
        import pandas as pd
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"expected the library pyarrow to write {target}, found none; try pip install pyarrow, or a .csv file"
        ) from error
    with replacing(target) as partial:
        pd.DataFrame(columns).to_parquet(partial, engine="pyarrow", index=False)
    return target


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isnan(value):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
