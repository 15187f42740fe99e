"""Questions to the library about a pair and its data; answers of two devices are compared by their numbers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

import pyrovae as pv

from . import NAME

Numbers = dict[str, np.ndarray]
Ask = Callable[..., Any]


def evidence_by(*estimators: Any) -> Ask:
    return lambda m, g, *a, **o: pv.evidence(m, g, *a, estimators=list(estimators), progress=False, **o)


# Of a pair and its data; `o` are options that say what is the plate.
ASKED: dict[str, Ask] = {
    "log_weights": lambda m, g, *a, **o: pv.log_weights(m, g, *a, num_samples=7, **o),
    "ELBO, IS, Jackknife, MLMC": evidence_by(
        pv.ELBO(7), pv.IS(300), pv.Jackknife(8), pv.MLMC(replicates=8, base=4)
    ),
    "AIS": evidence_by(pv.AIS(4, 3)),
    "SMC": evidence_by(pv.SMC(3, 16)),
    "Exact": evidence_by(pv.Exact()),
    "posterior": lambda m, g, *a, **o: pv.posterior(m, g, *a, num_samples=7, **o),
    "free_energy": lambda m, g, *a, **o: pv.thermodynamics.free_energy(
        m, g, *a, temperatures=[1.0, 2.0], **o
    ),
    "elbo_surgery": lambda m, g, *a, **o: pv.divergences.elbo_surgery(m, g, *a, **o),
    "column_terms": lambda m, g, *a, **o: pv.column_terms(m, g, *a, num_samples=7, **o),
    "embed": lambda m, g, *a, **o: pv.embed(m, g, *a, **o),
    "embed, resampled": lambda m, g, *a, **o: pv.embed(m, g, *a, resampled=True, num_samples=20, **o),
    "IS, defensive": evidence_by(pv.IS(20, defensive=0.1)),
    "reconstruct": lambda m, g, *a, **o: pv.reconstruct(m, g, *a, **o),
    "simulate": lambda m, g, *a, **o: pv.simulate(m, 6, *a, **{k: v for k, v in o.items() if k == "plate"}),
}
# They take seconds.
THOROUGH: dict[str, Ask] = {
    "OwnIS": evidence_by(pv.OwnIS(num_samples=100)),
    "Adaptive": evidence_by(pv.Adaptive(0.5, max_samples=6000)),
    "sandwich": lambda m, g, *a, **o: pv.sandwich(m, g, *a, simulate=3, progress=False, **o),
    "gaps": lambda m, g, *a, **o: pv.gaps(m, g, *a, num_samples=7, progress=False, **o),
    "rate_distortion": lambda m, g, *a, **o: pv.thermodynamics.rate_distortion(m, g, *a, **o),
}
# They draw on the CPU as well (picks, flows' first weights), where another generator goes on: means of data agree.
BY_THEIR_ERRORS = {"OwnIS", "Adaptive"}


def numbers_of(result: Any) -> Numbers:
    """All numbers of a result, by where they are in it."""
    found: Numbers = {}

    def walk(name: str, value: Any, depth: int) -> None:
        if isinstance(value, bool | int | float | np.ndarray | np.generic):
            found[name] = np.asarray(value)
        elif isinstance(value, Tensor):
            found[name] = value.detach().cpu().numpy()
        elif isinstance(value, dict):
            for key, part in value.items():
                walk(f"{name}.{key}", part, depth + 1)
        elif isinstance(value, list | tuple):
            for i, part in enumerate(value):
                walk(f"{name}[{i}]", part, depth + 1)
        elif is_dataclass(value) and depth < 6:
            for field in fields(value):
                walk(f"{name}.{field.name}", getattr(value, field.name), depth + 1)
        elif hasattr(value, "items") and not isinstance(value, nn.Module):
            with contextlib.suppress(TypeError):
                walk(name, dict(value.items()), depth + 1)

    walk("", result, 0)
    # Clocks; and picks among the draws of a posterior, which the CPU makes.
    untold = ("seconds", ".resampled", ".log_likelihood")
    return {k: v for k, v in found.items() if v.dtype.kind in "fiub" and not any(u in k for u in untold)}


def answer(ask: Callable[[], Any]) -> Numbers | str:
    """The numbers, among them whether random numbers of the caller go on as before; or the words of an error."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    before = _noise()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = numbers_of(ask())
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return found | {"noise": np.asarray(all(map(torch.equal, _noise(), before)))}


def _noise() -> tuple[Tensor, Tensor]:
    return torch.get_rng_state(), torch.get_device_module(NAME).get_rng_state()


def difference(there: Numbers | str, here: Numbers | str, tolerance: float = 1e-5) -> str | None:
    """First difference of two answers; None where they are the same."""
    if isinstance(there, str) or isinstance(here, str):
        same = isinstance(there, str) and isinstance(here, str) and there.replace(f"{NAME}:0", "cpu") == here
        return None if same else f"there {_short(there)}; on a CPU {_short(here)}"
    if there.keys() != here.keys():
        return f"other parts: {sorted(there.keys() ^ here.keys())}"
    if not there["noise"]:
        return "random numbers of the caller do not go on as before"
    for name, value in there.items():
        if value.shape != here[name].shape:
            return f"{name}: {value.shape} there; {here[name].shape} on a CPU"
        off = ~np.isclose(value, here[name], rtol=tolerance, atol=tolerance, equal_nan=True)
        if off.any():
            return f"{name}: {value[off].ravel()[:3]} there; {here[name][off].ravel()[:3]} on a CPU"
    return None


def apart(there: Numbers | str, here: Numbers | str) -> str | None:
    """First difference of two evidences by more than six of their errors; None where they agree."""
    if isinstance(there, str) or isinstance(here, str):
        return difference(there, here)
    for name in (n for n in there if n.endswith(".per_datum")):
        variance = name.replace("per_datum", "variance")
        error = np.sqrt(there[variance] + here[variance]) + 1e-6
        if (np.abs(there[name] - here[name]) > 6 * error).any():
            return f"{name}: {there[name]} there; {here[name]} on a CPU"
    return None


def _short(answer: Numbers | str) -> str:
    return answer[:400] if isinstance(answer, str) else f"{len(answer)} numbers"


def asked_of(
    there: Any, here: Any, asked: dict[str, Ask], within: Callable[[], Any]
) -> Iterator[tuple[str, str | None]]:
    """Each question, and what differs between a hand-written pair of the device and the same one of the CPU.

    The pair of the device is asked in the body of `within()`.
    """
    for name, ask in asked.items():
        on_cpu = answer(lambda ask=ask: ask(here.model, here.wrong, *here.args, **here.options))
        with within():
            on_device = answer(lambda ask=ask: ask(there.model, there.wrong, *there.args, **there.options))
        yield name, (apart if name in BY_THEIR_ERRORS else difference)(on_device, on_cpu)
