"""One cell of the Ising study: a model at one temperature, trained into its run folder and measured there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae import runs
from pyrovae.data import Dataset, IsingTorus
from pyrovae.files import write_whole
from pyrovae.json_files import read_json
from pyrovae.programs.generate.predictive import simulate

from ..options.machine import FormatName, KeepOptions
from ..options.options import DataOptions
from ..options.rbm_parts import machine_of
from ..running.work import train_run
from .ising_recipes import RBM_EXACT, Recipe

MEASURED = "measured.json"


@dataclass(frozen=True)
class Question:
    """How a trained model is measured.

    Attributes:
        num_samples: importance samples K behind ln p(x).
        limit: test data, or all for None.
        draws: configurations drawn from the model.
        sweeps: Gibbs sweeps behind each draw of a Boltzmann machine.
        betas, chains: of AIS, where its ln Z is not enumerated.
        seed: of the noise.
    """

    num_samples: int = 1000
    limit: int | None = None
    draws: int = 2000
    sweeps: int = 1000
    betas: int = 5000
    chains: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Cell:
    """A recipe at one temperature.

    Attributes:
        name: of the recipe.
        recipe: what is trained.
        data: the Ising data; of one temperature, or of several (a mixture).
        folder: its run folder.
        format: of the picture in it.
    """

    name: str
    recipe: Recipe
    data: DataOptions
    folder: Path
    format: FormatName = "png"


def trained(cell: Cell, overwrite: bool = False) -> pv.Run:
    """The run of the cell: as its folder holds it, else trained (from its checkpoint, where it was stopped).

    Raises:
        ValueError: the folder holds a run with other options, or is a link to another.
    """
    folder, recipe = cell.folder, cell.recipe
    runs.check_own(folder.parent, folder.name)
    options: dict[str, Any] = {"data": cell.data, "model": recipe.model, "train": recipe.train}
    wanted = {k: json.loads(json.dumps(dataclasses.asdict(v), default=str)) for k, v in options.items()}
    name = runs.UNFINISHED if runs.is_unfinished(folder) else runs.CONFIG
    if (folder / name).is_file() and not overwrite:
        found = runs.read_config(folder, name)
        other = [k for k in wanted if found.get(k) != wanted[k]]
        if other:
            raise ValueError(
                f"expected the {' and '.join(other)} options that {folder} was trained with, got others; try another "
                "--out, or --overwrite"
            )
        if name == runs.CONFIG:
            return runs.load(folder, device="cpu")
    (folder / MEASURED).unlink(missing_ok=True)
    train_run(
        folder,
        cell.data,
        recipe.model,
        recipe.train,
        device="cpu",
        overwrite=overwrite,
        keep=KeepOptions(resume=not overwrite, keep=1),
        format=cell.format,
    )
    return runs.load(folder, device="cpu")


def measured(cell: Cell, question: Question, overwrite: bool = False) -> dict[str, Any]:
    """Facts of a cell; kept in the run folder, and taken from there where the question is the same.

    Nats per datum (of L² spins): `kl` of ln p by IS (or exact, or AIS for an RBM) with `kl_se_data`, `kl_se_mc`,
    `kl_bias` and `kl_direction`; `kl_elbo` and `kl_elbo_se` of the ELBO; `inference_gap` = kl_elbo − kl, paired,
    with `inference_gap_se`. Of draws from the model: `energy`, `heat_capacity` (k_B, all spins) and their errors,
    the law of the energy `energy_law` `[L² + 1]`, and `correlation` `[L // 2 + 1]` with `correlation_se`.
    """
    run = trained(cell, overwrite)
    file = cell.folder / MEASURED
    key = {"weights_hash": run.weights_hash, **dataclasses.asdict(question)}
    with contextlib.suppress(
        OSError, ValueError, AttributeError
    ):  # not there, or damaged: it is measured again
        found = read_json(file)
        if found.pop("asked", None) == key:
            return dict(found)
    law = IsingTorus(int(run.data.parameters["L"]), float(run.data.parameters["T"][0]))
    result: dict[str, Any] = {"model": cell.name, "title": cell.recipe.title, "L": law.L, "T": law.T}
    result |= {"epochs": cell.recipe.train.epochs, "seconds": run.seconds, "run": cell.folder.name}
    result |= _evidence(run, question) | sample_figures(_draws(run, question), law.T)
    write_whole(file, json.dumps({**result, "asked": key}, indent=1) + "\n")
    return result


def _evidence(run: pv.Run, question: Question) -> dict[str, Any]:
    data: Dataset = run.data
    n = len(data.test) if question.limit is None else min(question.limit, len(data.test))
    assert data.log_evidence is not None
    log_p = data.log_evidence["test"][:n]

    def against(estimator: Any) -> pv.divergences.ForwardKL:
        return pv.divergences.forward_kl(
            data.test[:n],
            run.model,
            run.guide,
            log_density=lambda _: log_p,
            estimator=estimator,
            seed=question.seed,
        )

    machine = machine_of(run)
    if machine is None:
        best, elbo = against(pv.IS(question.num_samples)), against(pv.ELBO())
    else:
        small = min(machine.weight.shape) <= RBM_EXACT
        found: Any = pv.Exact() if small else pv.Normalised(betas=question.betas, num_chains=question.chains)
        best = elbo = against(found)  # its guide is its posterior
    gap = elbo.per_datum - best.per_datum
    return {
        "estimator": best.estimate.name,
        "kl": best.value,
        "kl_se_data": best.se_data,
        "kl_se_mc": best.se_mc,
        "kl_bias": _number(best.bias),
        "kl_direction": best.direction,
        "kl_elbo": elbo.value,
        "kl_elbo_se": elbo.se_data,
        "inference_gap": float(gap.mean()),
        "inference_gap_se": float(gap.std() / math.sqrt(n)),
        "num_data": n,
    }


def _draws(run: pv.Run, question: Question) -> Tensor:
    machine = machine_of(run)
    if machine is not None:
        return machine.sample(question.draws, question.sweeps, seed=question.seed)
    like = run.data.train[:1].expand(question.draws, -1)
    return simulate(run.model, like, seed=question.seed).x


def sample_figures(x: Tensor, T: float) -> dict[str, Any]:
    """Energy, heat capacity Var(E)/T², law of the energy and correlations of draws `[n, L²]`, with errors."""
    E, G, n = pv.data.energy(x), pv.data.correlation(x), len(x)
    centred = E - E.mean()
    variance = float(centred.square().mean())
    # Of a sample variance: Var(s²) = (m₄ − s⁴)/n to first order.
    spread = max(0.0, float(centred.pow(4).mean()) - variance**2)
    levels = ((E + 2 * x.shape[-1]) / 4).round().long()
    return {
        "energy": float(E.mean()),
        "energy_se": math.sqrt(variance / n),
        "heat_capacity": variance / T**2,
        "heat_capacity_se": math.sqrt(spread / n) / T**2,
        "energy_law": (torch.bincount(levels, minlength=x.shape[-1] + 1).double() / n).tolist(),
        "magnetisation": float(pv.data.magnetisation(x).abs().mean()),
        "correlation": G.mean(0).tolist(),
        "correlation_se": (G.std(0) / math.sqrt(n)).tolist(),
        "draws": n,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
