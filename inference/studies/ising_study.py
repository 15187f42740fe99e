"""The Ising study: all cells, side by side, and what the exact law says of them."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import pyrovae as pv
from pyrovae.comparing import Failure, run_side_by_side
from pyrovae.data import IsingTorus
from pyrovae.data.ising.laws import (
    energy_law,
    energy_levels,
    exact_correlation,
    independent_spins_kl,
    magnetisation_only_kl,
    up_spins_law,
)
from pyrovae.programs import latent_space

from ..options.machine import FormatName
from ..options.options import DataOptions
from ..running.telling import reason_of
from .ising_cells import Cell, Question, measured, trained
from .ising_recipes import ORDER, RECIPES, RecipeName, trained_for

SCAN = 12  # temperatures of the one-latent VAE
PER_TEMPERATURE = 400  # configurations of each that it is asked about
FINE = 60  # temperatures of exact curves


@dataclass(frozen=True)
class Plan:
    """Settings of the study: what is trained, and where.

    Attributes:
        cells: each model at each temperature.
        order: the one-latent VAE of all temperatures.
        question: how they are measured.
        overwrite: whether runs that are there are replaced.
    """

    cells: list[Cell]
    order: Cell
    question: Question
    overwrite: bool = False


def make_plan(
    out: Path,
    L: int,
    temperatures: tuple[float, ...],
    models: tuple[RecipeName, ...],
    epochs: int,
    train_size: int,
    question: Question,
    overwrite: bool = False,
    format: FormatName = "png",
) -> Plan:
    """The cells, each with a run folder in `out`.

    Raises:
        ValueError: no model or temperature, one given twice, L < 2 or T <= 0.
    """
    for name, given in (("models", models), ("temperatures", temperatures)):
        if not given or len(set(given)) < len(given):
            raise ValueError(f"expected {name}, each once, got {given}")
    if epochs < 1:
        raise ValueError(f"expected epochs >= 1, got {epochs}")
    for T in temperatures:
        IsingTorus(L, T)  # refuses what is no torus before anything is trained
    cells = []
    for T in temperatures:
        data = DataOptions(data="ising", L=L, T=(T,), train_size=train_size, data_seed=question.seed)
        for name in models:
            recipe = trained_for(RECIPES[name], epochs, question.seed, T)
            cells.append(Cell(name, recipe, data, out / f"{name}-T{T:.4g}", format))
    low, high = min(temperatures), max(temperatures)
    scan = tuple(round(low + (high - low) * i / (SCAN - 1), 6) for i in range(SCAN))
    order = Cell(
        "order",
        trained_for(ORDER, epochs, question.seed),
        DataOptions(
            data="ising",
            L=L,
            T=scan if low < high else (low,),
            train_size=train_size,
            data_seed=question.seed,
        ),
        out / f"order-T{low:.4g}-{high:.4g}",
        format,
    )
    if len({c.folder for c in cells}) < len(cells):
        raise ValueError(f"expected temperatures that differ in four digits, got {temperatures}")
    return Plan(cells, order, question, overwrite)


def run_plan(plan: Plan, jobs: int) -> Generator[tuple[Cell, dict[str, Any] | Failure], None, None]:
    """Results of `measured` for each cell, and the order parameter, as they end, `jobs` at a time."""
    items = [(c, plan.question, plan.overwrite) for c in plan.cells] + [(plan.order, None, plan.overwrite)]
    for item, result in run_side_by_side(_measure, items, jobs, reason=reason_of):
        yield item[0], result


def _measure(item: tuple[Cell, Question | None, bool]) -> dict[str, Any]:
    cell, question, overwrite = item
    return order_parameter(cell, overwrite) if question is None else measured(cell, question, overwrite)


def order_parameter(cell: Cell, overwrite: bool = False) -> dict[str, Any]:
    """⟨|z|⟩ and ⟨|m|⟩ of fresh configurations at each temperature, and their z and m, one row a temperature."""
    run = trained(cell, overwrite)
    L, temperatures = int(run.data.parameters["L"]), run.data.parameters["T"].tolist()
    rows: dict[str, list[Any]] = {"z": [], "m": [], "abs_z": [], "abs_z_se": [], "abs_m": []}
    for i, T in enumerate(temperatures):
        random = torch.Generator().manual_seed(i)  # not the draws that it was trained on
        x = IsingTorus(L, T).sample((PER_TEMPERATURE,), random)
        z = latent_space(run.model, run.guide, x).encode().mean.double().flatten()
        m = pv.data.magnetisation(x)
        rows["z"].append(z.tolist())
        rows["m"].append(m.tolist())
        rows["abs_z"].append(float(z.abs().mean()))
        rows["abs_z_se"].append(float(z.abs().std() / math.sqrt(len(z))))
        rows["abs_m"].append(float(m.abs().mean()))
    z, m = torch.tensor(rows["z"]).flatten(), torch.tensor(rows["m"]).flatten()
    correlation = float(torch.corrcoef(torch.stack([z, m]))[0, 1])
    return {"order": True, "T": temperatures, "correlation": correlation, "run": cell.folder.name, **rows}


def exact_figures(L: int, temperatures: tuple[float, ...]) -> dict[str, Any]:
    """Exact law at the study's temperatures, and along curves."""
    at = []
    for T in temperatures:
        law = IsingTorus(L, T)
        at.append(
            {
                "T": T,
                "free_energy": law.free_energy,
                "entropy": law.entropy,
                "energy": law.energy,
                "heat_capacity": law.heat_capacity,
                "independent_spins_kl": independent_spins_kl(law),
                "magnetisation_only_kl": magnetisation_only_kl(law),
                "energy_law": energy_law(law).tolist(),
                "correlation": exact_correlation(law).tolist(),
            }
        )
    low, high = min(temperatures), max(temperatures)
    grid = [low + (high - low) * i / (FINE - 1) for i in range(FINE)] if low < high else [low]
    laws = [IsingTorus(L, T) for T in grid]
    n = torch.arange(L * L + 1, dtype=torch.float64)
    m = (2 * n / L**2 - 1).abs()
    coarse = laws[::3]
    return {
        "at": at,
        "levels": (energy_levels(L) / L**2).tolist(),
        "curve": {
            "T": grid,
            "free_energy": [law.free_energy for law in laws],
            "heat_capacity": [law.heat_capacity for law in laws],
        },
        "magnetisation": {
            "T": [law.T for law in coarse],
            "abs_m": [float((up_spins_law(law) * m).sum()) for law in coarse],
        },
    }
