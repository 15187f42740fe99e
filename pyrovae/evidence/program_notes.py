"""Warnings of the program whose evidence is estimated."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ..programs import Program, measure_notes
from ..programs.checks.validity import scaled_sites
from .weights.narrower_guides import narrower_note

_NOISY = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


def program_notes(program: Program, modules: Iterable[nn.Module] = ()) -> list[str]:
    """Warnings of the program.

    Args:
        program: what is evaluated.
        modules: that it runs, in the mode in which the user left them.
    """
    out = []
    scaled = scaled_sites(program)
    if scaled:
        out.append(
            f"sites {scaled} carry a scale other than 1; the evidence is computed without it (a scale inside "
            "the weights would make it no bound)"
        )
    if program.full_size not in (None, program.arguments.num_data):
        out.append(
            f"the plate stands for {program.full_size:,} data, and {program.arguments.num_data:,} were passed: "
            "these are figures of the data passed, not of the data set"
        )
    if program.globals:
        out.append(
            f"{list(program.globals)} are conditioned on: the figures are ln p(x | {', '.join(program.globals)}), "
            "without the density of these values"
        )
    if program.ignored:
        out.append(f"the guide observes {list(program.ignored)}, which is no part of q(z | x): left out")
    if program.transformed:
        out.append(
            f"{list(program.transformed)} observe numbers that are neither those of x nor of its context (as x.log() or"
            " (x - mean) / scale): p is a density of these, and not comparable with one of x, which has their "
            "Jacobian, too (pv.likelihoods.LogNormal, Standardized; dist.TransformedDistribution)"
        )
    if program.narrower:
        out.append(narrower_note(program.narrower))
    out += measure_notes(program.measure, program.arguments.x)
    training = sorted({type(m).__name__ for m in modules if m.training and isinstance(m, _NOISY)})
    if training:
        out.append(f"{', '.join(training)} were left in train mode; they were evaluated in eval mode")
    return out
