"""Decision whether compiling an evaluation pays: from counts, never by a clock, so that a rerun is the same."""

from __future__ import annotations

from typing import Literal

import torch

Compile = bool | Literal["auto"]
# On a CPU. A graph takes 5-15 s, and saves some 3 us a pair, 20 us a draw of an own guide, 5 us a gradient.
PAIRS = 10_000_000  # (datum, sample)
PAIRS_ON = {"cuda": 500_000_000}  # it saves .016 us a pair on an H200
DRAWS = 500_000  # (datum, step, particle)
MOVES = 2_000_000  # gradient evaluations of a Markov chain


def compiles(compile: Compile, work: int, least: int) -> bool:
    """Whether to compile; "auto": from `least` on.

    Raises:
        ValueError: for anything else than True, False and "auto".
    """
    if compile not in (True, False, "auto"):
        raise ValueError(f'expected compile to be True, False or "auto", got {compile!r}')
    return work >= least if compile == "auto" else bool(compile)


def pairs_that_pay(device: torch.device) -> int:
    """(Datum, sample) pairs from which a compiled graph of log-weights is worth its compilation."""
    return PAIRS_ON.get(device.type, PAIRS)
