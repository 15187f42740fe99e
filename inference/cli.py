"""The `pyrovae` command, which hands its arguments to the script named first."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from pyrovae.inference.running.streams import patient_streams

# What each does, and an example.
COMMANDS = {
    "train": (
        "train a model and its guide, keep them in a run folder",
        "--data mnist --binarise dynamic --out runs/mnist",
    ),
    "evaluate": (
        "estimate the evidence of run folders by any estimator, and compare it with the ELBO",
        "runs/a runs/b",
    ),
    "gaps": (
        "say where the ELBO of a run folder loses its nats: family or amortisation",
        "runs/a --limit 100",
    ),
    "sandwich": (
        "bound the evidence on both sides, on data simulated from a run folder's model",
        "runs/a --simulate 50",
    ),
    "free_energy": (
        "free energies at several temperatures, thermodynamic integration, work, ELBO surgery",
        "runs/a --temperatures 0.5 1 2",
    ),
    "compare": (
        "train a grid of priors x guides x objectives and compare",
        "--priors standard vamp --guides diagonal flow",
    ),
    "sample": ("draw from a run folder: samples, reconstructions, latent space", "runs/a --num 64"),
    "impute": ("fill in what is missing of rows, with intervals", "runs/a --rows new.csv"),
    "score": (
        "ln p of each row of new data, with its error, and the least likely rows",
        "runs/a new.csv --worst 20",
    ),
    "embed": ("write where new data lie in the latent space, row by row", "runs/a new.csv"),
    "reconstruct": ("write what a run folder makes of new data, row by row", "runs/a new.csv"),
    "report": ("write one HTML page a run folder: evidence, figures, configuration", "runs/a runs/b"),
    "truth": ("hold every estimator against exact evidence: the table of docs/evidence.md", "--quick"),
    "ising": (
        "measure how far models of the Ising torus are from its exact law: tables and figures of docs/physics.md",
        "--L 8 --models vae rbm --quick",
    ),
    "rbm_study": (
        "hold Boltzmann machines against exact answers: ln Z by AIS, and MNIST beside scikit-learn",
        "ising --L 8",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Hands the rest of the command line to the script named first; `free-energy` is free_energy."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else ""
    script = name.replace("-", "_")
    if script in COMMANDS:
        # Imported on demand: --help and a typing mistake should not wait for torch.
        module = importlib.import_module(f"pyrovae.inference.{script}")
        return int(module.main(arguments[1:]))
    with patient_streams():
        return _answer(name)


def _answer(name: str) -> int:
    """Help, the version, or what is wrong with a name."""
    lines = "\n".join(f"  {n:<13}{text}\n{'':<17}pyrovae {n} {e}" for n, (text, e) in COMMANDS.items())
    usage = (
        f"usage: pyrovae COMMAND [options]\n\n{lines}\n\n"
        "pyrovae COMMAND --help lists its usual options, --help-all all of them."
    )
    if name in ("-h", "--help"):
        print(usage)
        return 0
    if name == "--version":
        from importlib.metadata import version

        print(version("pyrovae"))
        return 0
    near = difflib.get_close_matches(name.replace("-", "_"), COMMANDS, 1)
    wrong = f"expected a command among {', '.join(COMMANDS)}, got {name!r}" if name else "expected a command"
    hint = f"; try pyrovae {near[0]}" if near else ""
    print(f"pyrovae: error: {wrong}{hint}\n\n{usage}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
