"""Free energies of a run folder: F_q and F_p at several temperatures, thermodynamic integration, work, ELBO surgery."""

from __future__ import annotations

import math
import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["free_energy", *sys.argv[1:]]))

import torch
import tyro
from torch import Tensor

import pyrovae as pv
from pyrovae import plots
from pyrovae.files import write_whole
from pyrovae.inference.options.building import device_of
from pyrovae.inference.options.machine import FormatName, MachineOptions
from pyrovae.inference.options.ranges import MANY
from pyrovae.inference.running.evaluating import load_runs, prepare
from pyrovae.inference.running.running import console, progress, run_script, write_all
from pyrovae.models.ground_truths import ground_truths, nonlinear
from pyrovae.text import table_lines


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of free_energy."""

    RANGES: ClassVar = {"steps": (2, MANY), "temperatures": (0, math.inf, "open")}

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """Run folder of train, compare or pv.save; or --truth."""
    truth: bool = False
    """Programs whose free energies are known, in place of a run folder."""
    out: Path | None = None
    """Folder of what is written (default: the run folder, or runs/free_energy)."""
    temperatures: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4, 2.0)
    """Temperatures T of F_q and F_p, rising."""
    estimator: Literal["is", "ais", "exact"] = "ais"
    """Estimator of F_p; exact needs discrete latents, one or two latent dims, or a quadratic energy."""
    limit: int = 50
    """Test data at most."""
    simulate: int = 16
    """Data simulated for the works."""
    num_samples: int = 1000
    """Draws K of the guide per datum."""
    chains: int = 64
    """AIS chains per datum."""
    steps: int = 60
    """AIS temperatures between the ends of a path, both counted."""
    work_steps: int = 10
    """The same for the works: few, so that the histograms are apart."""
    work_chains: int = 500
    """Chains per datum and direction for the works."""
    leapfrog: int = 5
    """Leapfrog steps of one move."""
    seed: int = 0
    """Seed of data and noise."""
    trust: bool = False
    """Run the code that a run folder names (--model of train), where it is not the code that you trained it with."""
    root: Path | None = None
    """Folder of data sets, where it differs from the run's."""
    format: FormatName = "png"
    """Format of pictures."""
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Writes free_energy.png, integration.png, work.png and free_energy.md."""
    if (options.folder is None) != options.truth:
        raise ValueError("expected a run folder or --truth, got " + ("both" if options.truth else "neither"))
    lines: list[str] = []
    exact: Callable[[Tensor], Tensor] | None = None
    model: Any
    guide: Any
    digest: str | None = None
    context: list[Tensor] = []
    if options.truth:
        lines += ["## Exact programs", "", *truth_rows(options), ""]
        case = nonlinear(1, options.limit, seed=options.seed)
        model, guide, x, title = case.model, case.guide, case.x, case.name

        def exact(x: Tensor) -> Tensor:
            return pv.evidence(model, guide, x, estimators=[pv.Exact()])["Exact"].per_datum
    else:
        assert options.folder is not None
        device = device_of(options.machine.device)
        (loaded,), (x, *context) = load_runs(
            [options.folder], options.root, device, "test", options.limit, options.trust
        )
        model, guide, title = loaded.model, loaded.guide, f"{loaded.folder}: {loaded.spec.name}"
        digest = loaded.weights_hash
    out = options.out or options.folder or Path("runs/free_energy")
    prepare(out, "--out")
    estimators: dict[str, pv.IS | pv.AIS | pv.Exact] = {
        "is": pv.IS(options.num_samples),
        "ais": pv.AIS(options.steps, options.chains, "guide", options.leapfrog),
        "exact": pv.Exact(),
    }
    with progress(options.machine.quiet, "free energies", 4) as update:
        free = pv.thermodynamics.free_energy(
            model,
            guide,
            x,
            *context,
            temperatures=options.temperatures,
            estimator=estimators[options.estimator],
            num_samples=options.num_samples,
            seed=options.seed,
        )
        update(completed=1, note="integration")
        ais = pv.AIS(options.steps, options.chains, "prior", options.leapfrog)
        tempered = pv.thermodynamics.tempered_likelihood(
            model, guide, x, *context, ais=ais, seed=options.seed
        )
        update(completed=2, note="work")
        ais = pv.AIS(options.work_steps, options.work_chains, "prior", options.leapfrog)
        work = pv.work_distributions(
            model, guide, x, *context, simulate=options.simulate, ais=ais, seed=options.seed
        )
        update(completed=3, note="surgery")
        surgery = pv.divergences.elbo_surgery(model, guide, x, *context, seed=options.seed)
        update(completed=4, note="")
    known = None if exact is None else exact(x)
    at_work = None if exact is None else exact(work.x)
    lines += [f"## {title}", "", free.table("markdown")]
    lines += [f"- {tempered!r}" + _known(known), f"- {work!r}" + _known(at_work), f"- {surgery!r}"]
    lines += [f"- {note}" for note in surgery.warnings]
    text = "\n".join(lines) + "\n"
    print(text)
    writers: list[Callable[[], None]] = [
        lambda: write_whole(out / "free_energy.md", text),
        lambda: plots.save(tempered.plot(exact=known), out / f"integration.{options.format}", digest),
        lambda: plots.save(
            work.plot(exact=None if at_work is None else float(at_work[0])),
            out / f"work.{options.format}",
            digest,
        ),
    ]
    if len(options.temperatures) > 1:
        writers.append(lambda: plots.save(free.plot(), out / f"free_energy.{options.format}", digest))
    write_all(writers)
    pictures = ", ".join(f"{name}.{options.format}" for name in ("free_energy", "integration", "work"))
    console.print(f"{out}: free_energy.md, {pictures}", highlight=False)


def truth_rows(options: Options) -> list[str]:
    """F_q - F_p of each exact program, F_p exact and by AIS; Markdown."""
    head = ("program", "T", "F_q − F_p, F_p exact", "by AIS", "(AIS − exact) / error")
    rows = []
    for case in ground_truths(12, seed=options.seed):
        asked: dict[str, Any] = {"temperatures": (0.5, 1.0, 2.0), "num_samples": options.num_samples}
        exact = pv.thermodynamics.free_energy(case.model, case.guide, case.x, estimator=pv.Exact(), **asked)
        gap, _, gap_se = exact.mean("gap")
        other, cells = None, [("–", "–")] * 3
        if case.continuous:
            estimator = pv.AIS(30, 32, "guide", options.leapfrog)
            other = pv.thermodynamics.free_energy(
                case.model, case.guide, case.x, estimator=estimator, **asked
            )
            value, _, se = other.mean("gap")
            error = (other.helmholtz - exact.helmholtz).mean(-1) / other.mean("helmholtz")[2]
            cells = [(f"≥ {v:.4f} ± {e:.4f}", f"{z:+.1f}") for v, e, z in zip(value, se, error, strict=True)]
        for i, t in enumerate(exact.temperatures.tolist()):
            rows.append((case.name, f"{t:g}", f"{gap[i]:.4f} ± {gap_se[i]:.4f}", *cells[i]))
    lines = table_lines(head, rows)
    return [*lines, "", "12 data each, nats per datum ± Monte-Carlo error; the last column is of F_p."]


def _known(values: Tensor | None) -> str:
    return "" if values is None else f"; exact ln p(x) {float(torch.mean(values)):.4f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "free_energy", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
