"""Deep latent-variable models in Pyro, with evidence you can trust."""

# First: what a script imports next takes seconds in which Ctrl-C may come.
from . import starting as starting

# isort: split
import importlib
import sys
import types
import warnings
from typing import Any

import lazy_loader

# Names resolve on first use, by the list in __init__.pyi, so that `pyrovae --help` need not wait for torch.
_resolve, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"

# Names that were here in 0.1.0, and the room that has them: to go in 0.3.
_MOVED = {
    "divergences": "Divergence ElboSurgery ForwardKL elbo_surgery forward_kl js kl",
    "thermodynamics": "FreeEnergy RateDistortion TemperedLikelihood free_energy rate_distortion tempered_likelihood",
}


def __getattr__(name: str) -> Any:
    for room, names in _MOVED.items():
        if name in names.split():
            warnings.warn(
                f"pv.{name} is pv.{room}.{name} now; the short name goes with version 0.3",
                DeprecationWarning,
                stacklevel=2,
            )
            return getattr(importlib.import_module(f".{room}", __name__), name)
    return _resolve(name)


class _Package(types.ModuleType):
    """Keeps `pv.evidence` the function: importing the package of that name would put a module in its place."""

    @property
    def evidence(self) -> Any:
        if "_evidence" not in self.__dict__:
            from .evidence.evidence import evidence

            self.__dict__["_evidence"] = evidence
        return self.__dict__["_evidence"]

    @evidence.setter
    def evidence(self, value: Any) -> None:
        if not isinstance(value, types.ModuleType):  # which the import system sets
            self.__dict__["_evidence"] = value


sys.modules[__name__].__class__ = _Package
