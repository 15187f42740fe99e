"""The `pyrovae` command: train, evaluate, gaps, sandwich, free_energy, compare, sample, truth, ising, rbm_study."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from pyrovae.inference.running.streams import patient_streams

COMMANDS = {
    "train": "train a model and its guide, keep them in a run folder",
    "evaluate": "estimate the evidence of run folders by any estimator, and compare it with the ELBO",
    "gaps": "say where the ELBO of a run folder loses its nats: family or amortisation",
    "sandwich": "bound the evidence on both sides, on data simulated from a run folder's model",
    "free_energy": "free energies at several temperatures, thermodynamic integration, work, ELBO surgery",
    "compare": "train a grid of priors x guides x objectives and compare",
    "sample": "draw from a run folder: samples, reconstructions, latent space",
    "truth": "hold every estimator against exact evidence: the table of docs/evidence.md",
    "ising": "measure how far models of the Ising torus are from its exact law: tables and figures of docs/physics.md",
    "rbm_study": "hold Boltzmann machines against exact answers: ln Z by AIS, and MNIST beside scikit-learn",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Hands the rest of the command line to the script named first."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else ""
    if name in COMMANDS:
        # Imported on demand: --help and a typing mistake should not wait for torch.
        module = importlib.import_module(f"pyrovae.inference.{name}")
        return int(module.main(arguments[1:]))
    with patient_streams():
        return _answer(name)


def _answer(name: str) -> int:
    """Help, the version, or what is wrong with a name."""
    lines = "\n".join(f"  {n:<13}{text}" for n, text in COMMANDS.items())
    usage = f"usage: pyrovae COMMAND [options]\n\n{lines}\n\npyrovae COMMAND --help lists the options."
    if name in ("-h", "--help"):
        print(usage)
        return 0
    if name == "--version":
        from importlib.metadata import version

        print(version("pyrovae"))
        return 0
    wrong = f"expected a command among {', '.join(COMMANDS)}, got {name!r}" if name else "expected a command"
    print(f"pyrovae: error: {wrong}\n\n{usage}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
