"""Columns of a comparison's table, and a row's figures in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..evidence import Estimate
from ..evidence.verdict import choose
from ..evidence.weights.diagnostics import khat_threshold
from ..programs import check_alike
from .entry import Difference, Entry, difference

NONE = "–"
# The one whose differences are shown, where all have it.
STRONGEST = ("Exact", "Adaptive", "IS")
# Estimators with columns of their own.
NAMED = ("ELBO", "IS", "Adaptive")


@dataclass(frozen=True)
class Columns:
    """Which columns a table has, found from all of its entries.

    Attributes:
        split: of the data, for the heads.
        unit: behind the name of a figure that is a density.
        estimators: of all entries, in their order.
        seeded: whether an entry has several seeds, or lost one.
        against: what the differences are to.
    """

    split: str
    unit: str
    estimators: tuple[str, ...]
    seeded: bool
    against: str = "best"

    @classmethod
    def of(cls, entries: Sequence[Entry], split: str, against: str = "best") -> Columns:
        """The columns that these entries need.

        Raises:
            ValueError: masses and densities together.
        """
        measures = [(e.title, ev.measure) for e in entries for ev in e.evidences.values()]
        check_alike(measures)
        unit = next((m.label for _, m in measures if m is not None), "")
        names = dict.fromkeys(n for e in entries for ev in e.evidences.values() for n in ev)
        # Those of the usual question are there also where nothing has been found.
        found = tuple(names) or ("ELBO", "IS")
        seeded = any(len(e.evidences) > 1 or e.lost for e in entries)
        return cls(split, unit, found, seeded, against)

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads of all figures, from left to right."""
        have = set(self.estimators)
        seeds = ("seeds",) if self.seeded else ()
        means: tuple[str, ...] = (f"{self.split} ELBO ± se{self.unit}",) if "ELBO" in have else ()
        means += tuple(f"{name} ± se{self.unit}" for name in self._others)
        means += (f"IS evidence ± se{self.unit}",) if "IS" in have else ()
        spread = ("sd over seeds", "± seeds") if self.seeded else ()
        weights: tuple[str, ...] = ("certified ≥",) if have != {"ELBO"} else ()
        weights += ("gap",) if {"ELBO", "IS"} <= have else ()
        weights += ("median ESS", "k̂ high") if "IS" in have else ()
        own = (f"ln p(x) ± MC{self.unit}", "supported") if "Adaptive" in have else ()
        paired = (f"Δ to {self.against} ± se", *(("Δ ± seeds", "order") if self.seeded else ()))
        return (*seeds, *means, *spread, *weights, *own, *paired, "seconds")

    @property
    def _others(self) -> tuple[str, ...]:
        return tuple(n for n in self.estimators if n not in NAMED)

    def signs(self, entries: Sequence[Entry]) -> dict[str, str]:
        """ln p(x) against the figures, by head: "≥" for lower bounds; where all entries agree."""
        names = {"ELBO": f"{self.split} ELBO", "IS": "IS evidence"} | {n: n for n in self._others}
        found = {}
        for name, words in names.items():
            symbols = {e.symbol for entry in entries for e in entry.estimates(name)}
            if len(symbols) == 1:
                found[f"{words} ± se{self.unit}"] = symbols.pop()
        return found

    def figures(self, entry: Entry, target: Entry, word: str = "best", among: int = 1) -> tuple[str, ...]:
        """Figures of an entry under the heads; `word` stands for its difference where it is the target itself."""
        have = set(self.estimators)
        cells: list[str] = []
        if self.seeded:
            number, lost = len(entry.evidences), len(entry.lost)
            cells.append(f"{number} of {number + lost}" if lost else str(number))
        shown = [*(["ELBO"] if "ELBO" in have else []), *self._others, *(["IS"] if "IS" in have else [])]
        cells += [_mean(entry, name) for name in shown]
        if self.seeded:
            name = headline(entry)
            figure = entry.figure(name)
            cells += [_number(figure.sd_seeds), _number(figure.se_seeds)]
        if have != {"ELBO"}:
            cells.append(_number(certificate(entry)))
        if {"ELBO", "IS"} <= have:
            both = {"ELBO", "IS"} <= set(entry.names)
            gaps = [ev.gap for ev in entry.evidences.values()] if both else []
            cells.append(_number(sum(gaps) / len(gaps) if gaps else None))
        if "IS" in have:
            cells += _weights(entry.estimates("IS"))
        if "Adaptive" in have:
            cells += _supported(entry.estimates("Adaptive"))
        return (*cells, *self._differences(entry, target, word, among), _seconds(entry.seconds))

    def _differences(self, entry: Entry, target: Entry, word: str, among: int) -> tuple[str, ...]:
        if entry is target:
            return (word, *((NONE, NONE) if self.seeded else ()))
        found = difference(entry, target, among)
        text = f"{found.mean:+.3f} ± {found.se_data:.3f}"
        return (text, *((_number(found.se_seeds), _order(found)) if self.seeded else ()))


def headline(entry: Entry) -> str:
    """The estimator by which an entry is ranked: the strongest claim on ln p(x) that all its seeds have."""
    names = entry.names or list(entry.evidence)
    return next((n for n in STRONGEST if n in names), None) or choose([entry.evidence[n] for n in names]).name


def best_of(entries: Sequence[Entry]) -> Entry:
    """The entry with the highest mean over data and seeds, by an estimator that all have, where there is one.

    One that has lost a seed is the best only where all have: the mean of its other seeds may be the higher one by that.
    """
    entries = [e for e in entries if not e.lost] or entries
    shared = [n for n in entries[0].names if all(n in e.names for e in entries)]
    name = next((n for n in STRONGEST if n in shared), None)
    if name is None and shared:
        name = choose([entries[0].evidence[n] for n in shared]).name
    return max(entries, key=lambda e: e.figure(name or headline(e)).mean)


def certificate(entry: Entry, among: int = 1) -> float | None:
    """Mean over seeds of the certificates, chosen after the fact among those of `among` programs.

    With draws of its own for each seed, E[prod over seeds and data of p̂ / p] = 1, and Markov's inequality gives the
    mean of S certificates a probability of failure of delta^S, at most delta.
    """
    found = entry.estimates("IS") or [choose(list(ev.values())) for ev in entry.evidences.values()]
    values = [e.certificate_among(among) for e in found]
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _mean(entry: Entry, name: str) -> str:
    if not entry.estimates(name):
        return "refused" if any(name in ev.refused for ev in entry.evidences.values()) else NONE
    figure = entry.figure(name)
    return f"{figure.mean:.3f} ± {figure.se_data:.3f}"


def _weights(found: list[Estimate]) -> tuple[str, str]:
    """Median effective sample size, and the share of data whose k-hat is high; over data and seeds."""
    sizes = [e.ess.cpu() for e in found if e.ess is not None]
    khats = [e.khat.cpu() for e in found if e.khat is not None]
    if not sizes or not khats:
        return NONE, NONE
    khat = torch.cat(khats)
    known = khat[~khat.isnan()]  # none where K < 25
    high = float((known > khat_threshold(found[0].num_samples)).double().mean()) if len(known) else math.nan
    return f"{float(torch.cat(sizes).median()):.0f}", NONE if math.isnan(high) else f"{high:.0%}"


def _supported(found: list[Estimate]) -> tuple[str, str]:
    """ln p(x) by proposals of the data's own, and the share of the data that the weights support."""
    if not found:
        return NONE, NONE
    number = len(found)
    symbols = {e.symbol for e in found}
    mean = sum(e.log_evidence for e in found) / number
    error = math.hypot(*(e.se_mc for e in found)) / number
    share = sum(e.unreliable_share for e in found) / number
    symbol = symbols.pop() if len(symbols) == 1 else "≥"
    return f"{symbol} {mean:.3f} ± {error:.3f}", f"{1 - share:.1%}"


def _order(found: Difference) -> str:
    if found.order_stands is None:
        return NONE
    word = "stands" if found.order_stands else "open"
    return f"{word}, {found.behind} of {found.num_seeds}"


def _number(value: float | None) -> str:
    return NONE if value is None or math.isnan(value) else f"{value:.3f}"


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}"
