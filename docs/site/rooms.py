"""Pages of the API reference: what each public room of the library exports, from its docstrings."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pyrovae as pv

# Menu entry: modules whose exports are on its page.
ROOMS = {
    "pyrovae": ["pyrovae"],
    "evidence": ["pyrovae.evidence"],
    "priors": ["pyrovae.priors"],
    "guides": ["pyrovae.guides"],
    "likelihoods": ["pyrovae.likelihoods"],
    "networks": ["pyrovae.networks"],
    "models": [
        "pyrovae.models.vae",
        "pyrovae.models.hierarchical",
        "pyrovae.models.levels.paths",
        "pyrovae.models.levels.guides",
        "pyrovae.models.diffusion",
        "pyrovae.models.diffusing.diffusion_process",
        "pyrovae.models.diffusing.noise_schedules",
        "pyrovae.models.boltzmann",
        "pyrovae.models.linear_gaussian",
        "pyrovae.models.ground_truths",
        "pyrovae.models.composing.vae",
        "pyrovae.models.composing.levels",
        "pyrovae.models.composing.diffusion",
    ],
    "objectives": ["pyrovae.objectives"],
    "training": ["pyrovae.training", "pyrovae.svi"],
    "comparing": ["pyrovae.comparing"],
    "data": ["pyrovae.data"],
    "distributions": ["pyrovae.distributions"],
    "divergences": ["pyrovae.divergences"],
    "thermodynamics": ["pyrovae.thermodynamics"],
    "plots": ["pyrovae.plots"],
    "programs": ["pyrovae.programs"],
    "runs": ["pyrovae.runs"],
    "distributed": ["pyrovae.distributed"],
}


def write_rooms(folder: Path) -> dict[str, str]:
    """Writes one page a room; menu entry to file name."""
    folder.mkdir(parents=True, exist_ok=True)
    for title, modules in ROOMS.items():
        parts = [f"# {title}"]
        for name in modules:
            module = importlib.import_module(name)
            if len(modules) > 1:
                parts.append(f"## `{name}`")
            about = inspect.getdoc(module) or ""
            parts.append(about)
            # What `pv.` has by itself is on the first page alone, under the name that users write.
            level = 3 if len(modules) > 1 else 2
            for public, value in exports(module).items():
                if (
                    name != "pyrovae"
                    and public in pv.__all__
                    and inspect.unwrap(getattr(pv, public)) is value
                ):
                    continue
                parts.append(entry(value, level))
        (folder / f"{title}.md").write_text("\n\n".join(parts) + "\n")
    return {title: f"{title}.md" for title in ROOMS}


def exports(module: ModuleType) -> dict[str, Any]:
    """Classes and functions that a module exports, or defines where it is a single file, by name."""
    whole = module.__name__ == "pyrovae" or hasattr(module, "__path__")
    found = {}
    for name in getattr(module, "__all__", None) or vars(module):
        value = getattr(module, name)
        value = inspect.unwrap(value) if inspect.isfunction(value) else value
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        home = value.__module__
        if home.startswith("pyrovae.") and (whole or home == module.__name__):
            found[name] = value
    return found


def entry(value: Any, level: int) -> str:
    """The lines that ask for the documentation of an object."""
    return f"::: {value.__module__}.{value.__qualname__}\n    options:\n      heading_level: {level}"
