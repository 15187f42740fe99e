"""The tables and figures of the Ising study, from its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrovae import plots
from pyrovae.plots.physics.ising import Points
from pyrovae.text import table_lines

SIGNS = {">=": "≤ ", "<=": "≥ ", "~": "", "none": ""}  # of the KL, by the direction of its estimate


def tables(study: dict[str, Any]) -> list[str]:
    """Markdown: the measured KL, its split, and what draws from the models say."""
    L = study["L"]
    lines = [f"## KL(p_data ‖ p_θ), nats per configuration of {L} x {L} spins", ""]
    lines += [
        "± is the standard error over data; ≤ says that the estimate overstates the KL on average, ≥ that it"
    ]
    lines += ["understates it (ln Z of the RBM by AIS).", ""]
    exact = study["exact"]["at"]
    rows = [
        [title, *(_kl(cells[e["T"]]) if e["T"] in cells else "" for e in exact)]
        for title, cells in by_model(study).items()
    ]
    for key, name in (
        ("magnetisation_only_kl", "*magnetisation only*"),
        ("independent_spins_kl", "*independent spins*"),
        ("entropy", "*entropy S of the data*"),
    ):
        rows.append([name, *(f"{e[key]:.3f}" for e in exact)])
    lines += table_lines(["model", *(f"T = {e['T']:.4g}" for e in exact)], rows)
    lines += ["", "## Where the ELBO loses its nats, and what draws from the models say", ""]
    heads = (
        "T",
        "model",
        "−ELBO − S",
        "= KL",
        "+ inference gap",
        "⟨E⟩ of draws",
        "C / L² of draws",
        "epochs",
        "s",
    )
    rows = []
    for e in exact:
        figures = [f"{e['energy']:.2f}", f"{e['heat_capacity'] / L**2:.4f}"]
        rows.append([f"{e['T']:.4g}", "*exact*", "", "", "", *figures, "", ""])
        rows += [
            _split(title, cells[e["T"]], L) for title, cells in by_model(study).items() if e["T"] in cells
        ]
    lines += table_lines(heads, rows, (1,))
    order = study["order"]
    lines += [
        "",
        f"Latent of the one-latent VAE: correlation with the magnetisation {order['correlation']:+.4f}.",
    ]
    return lines


def _kl(c: dict[str, Any]) -> str:
    # One ln Z serves all data: its error does not show in the spread over them.
    error = c["kl_se_data"] if c["estimator"] == "IS" else (c["kl_se_data"] ** 2 + c["kl_se_mc"] ** 2) ** 0.5
    return f"{SIGNS[c['kl_direction']]}{c['kl']:.3f} ± {error:.3f}"


def _split(title: str, c: dict[str, Any], L: int) -> list[str]:
    return [
        f"{c['T']:.4g}",
        title,
        f"{c['kl_elbo']:.3f}",
        f"{c['kl']:.3f} ± {c['kl_se_mc']:.3f} (MC)",
        f"{c['inference_gap']:.3f} ± {c['inference_gap_se']:.3f}",
        f"{c['energy']:.2f} ± {c['energy_se']:.2f}",
        f"{c['heat_capacity'] / L**2:.4f} ± {c['heat_capacity_se'] / L**2:.4f}",
        f"{c['epochs']}",
        f"{c['seconds']:.0f}",
    ]


def by_model(study: dict[str, Any]) -> dict[str, dict[float, dict[str, Any]]]:
    """Title to temperature to what was measured."""
    found: dict[str, dict[float, dict[str, Any]]] = {}
    for cell in study["cells"]:
        found.setdefault(cell["title"], {})[cell["T"]] = cell
    return {title: dict(sorted(cells.items())) for title, cells in found.items()}


def write_figures(study: dict[str, Any], out: Path, format: str) -> list[str]:
    """Writes the figures into `out`; returns their names."""
    drawn = {
        "ising_latent": _latent(study),
        "ising_order": _order(study),
        "ising_free_energy": _free_energy(study),
        "ising_kl": _split_figure(study),
        "ising_heat_capacity": _heat_capacity(study),
        "ising_energies": _energies(study),
        "ising_correlations": _correlations(study),
    }
    for name, figure in drawn.items():
        plots.save(figure, out / f"{name}.{format}")
    return [f"{name}.{format}" for name in drawn]


def _latent(study: dict[str, Any]) -> Any:
    order = study["order"]
    z, m = torch.tensor(order["z"]), torch.tensor(order["m"])
    T = torch.tensor(order["T"]).unsqueeze(-1).expand_as(z)
    return plots.plot_latent_magnetisation(z.flatten(), m.flatten(), T.flatten())


def _order(study: dict[str, Any]) -> Any:
    order, exact = study["order"], study["exact"]["magnetisation"]
    # The unit of z is free: that of the least squares between the two.
    z, m = torch.tensor(order["abs_z"]), torch.tensor(order["abs_m"])
    scale = float((z * m).sum() / (m * m).sum())
    return plots.plot_order_parameter(
        (order["T"], order["abs_z"], order["abs_z_se"]), (exact["T"], exact["abs_m"]), scale
    )


def _points(cells: dict[float, dict[str, Any]], value: str, error: str, factor: float = 1.0) -> Points:
    rows = list(cells.values())
    return list(cells), [factor * c[value] for c in rows], [factor * c[error] for c in rows]


def _free_energy(study: dict[str, Any]) -> Any:
    spins, curve = study["L"] ** 2, study["exact"]["curve"]

    def off(cells: dict[float, dict[str, Any]], value: str, error: str) -> Points:
        # ⟨E⟩ + T ⟨ln p_θ⟩ = F − T KL, over data
        t = list(cells)
        values = [-T * c[value] / spins for T, c in cells.items()]
        return t, values, [T * c[error] / spins for T, c in cells.items()]

    models = by_model(study)
    return plots.plot_free_energy_per_spin(
        (curve["T"], [f / spins for f in curve["free_energy"]]),
        {n: off(c, "kl_elbo", "kl_elbo_se") for n, c in models.items() if _has_gap(c)},
        {n: off(c, "kl", "kl_se_data") for n, c in models.items()},
    )


def _has_gap(cells: dict[float, dict[str, Any]]) -> bool:
    return any(c["estimator"] == "IS" for c in cells.values())


def _split_figure(study: dict[str, Any]) -> Any:
    at = study["exact"]["at"]
    t = [e["T"] for e in at]
    return plots.plot_kl_split(
        {
            n: (_points(c, "kl", "kl_se_data"), _points(c, "kl_elbo", "kl_elbo_se"))
            for n, c in by_model(study).items()
        },
        {
            "independent spins": (t, [e["independent_spins_kl"] for e in at]),
            "magnetisation only": (t, [e["magnetisation_only_kl"] for e in at]),
        },
    )


def _heat_capacity(study: dict[str, Any]) -> Any:
    spins, curve = study["L"] ** 2, study["exact"]["curve"]
    return plots.plot_heat_capacity(
        (curve["T"], [c / spins for c in curve["heat_capacity"]]),
        {n: _points(c, "heat_capacity", "heat_capacity_se", 1 / spins) for n, c in by_model(study).items()},
    )


def _energies(study: dict[str, Any]) -> Any:
    exact = {e["T"]: _tensor(e["energy_law"]) for e in study["exact"]["at"]}
    models = {
        n: {t: _tensor(c["energy_law"]) for t, c in cells.items()} for n, cells in by_model(study).items()
    }
    return plots.plot_energy_histograms(_tensor(study["exact"]["levels"]), exact, models)


def _correlations(study: dict[str, Any]) -> Any:
    exact = {e["T"]: _tensor(e["correlation"]) for e in study["exact"]["at"]}
    models = {
        n: {t: (_tensor(c["correlation"]), _tensor(c["correlation_se"])) for t, c in cells.items()}
        for n, cells in by_model(study).items()
    }
    return plots.plot_ising_correlations(exact, models)


def _tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
