"""Rows of a history in words."""

from __future__ import annotations

import math

import pyrovae as pv
from pyrovae.training.logging.history import Row


def note_of(row: Row) -> str:
    """Beside the progress bar."""
    if "elbo" in row:
        return f"ELBO {row['elbo']:.2f}{_kl(row, 'kl', ' ', 2)} valid {row.get('valid_elbo', math.nan):.2f}"
    phases = f"phases {row['positive_phase']:.2f} {row['negative_phase']:.2f}"
    name = "log_likelihood" if "log_likelihood" in row else "pseudo_log_likelihood"
    return f"{phases} {name.replace('_', ' ')} {row.get(f'valid_{name}', row.get(name, math.nan)):.2f}"


def kept(fit: pv.Fit) -> str:
    """The epoch that was kept."""
    best = fit.history[fit.best_epoch - 1]
    start = f"epoch {fit.best_epoch} of {len(fit.history)} kept: "
    if "term_diffusion" in best and abs(best["valid_kl"]) < 1e-3:
        terms = {"reconstruction": "x", "prior matching": "prior_matching", "diffusion": "diffusion"}
        each = ", ".join(f"{words} {best[f'valid_term_{name}']:.3f}" for words, name in terms.items())
        return f"{start}validation ELBO {best['valid_elbo']:.3f} nats = {each}"
    if "elbo" in best:
        active = best["valid_active_units"]
        units = "" if math.isnan(active) else f", {active:.0f} active units"
        return f"{start}validation ELBO {best['valid_elbo']:.3f} nats{_kl(best, 'valid_kl', ', ', 3)}{units}"
    figures = {
        "log-likelihood": "valid_log_likelihood",
        "pseudo-log-likelihood": "valid_pseudo_log_likelihood",
        "free energy": "valid_free_energy",
    }
    return start + ", ".join(f"validation {k} {best[v]:.3f} nats" for k, v in figures.items() if v in best)


def _kl(row: Row, key: str, before: str, digits: int) -> str:
    """The KL, where there is one: summed-out latents leave none."""
    return "" if math.isnan(row[key]) else f"{before}KL {row[key]:.{digits}f}"
