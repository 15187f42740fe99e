"""The range of every number that a script takes, in one table: what lies outside is refused before any work."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from pyrovae.text import has_controls, visible

MANY = 10**9  # draws, data or steps beyond which nothing ends
SEEDS = 2**63 - 1

# Option to (least, greatest); with "open", the ends themselves are outside.
RANGES: dict[str, tuple[float, float] | tuple[float, float, str]] = {
    **dict.fromkeys(("num_samples", "replicates", "chains", "leapfrog", "draws", "simulate", "work_chains"), (1, MANY)),
    **dict.fromkeys(("num", "num_draws", "limit", "num_data", "repeats", "jobs", "seeds", "train_size"), (1, MANY)),
    **dict.fromkeys(("epochs", "batch_size", "patience", "particles", "gibbs_steps", "gibbs_chains"), (1, MANY)),
    **dict.fromkeys(("accumulate", "lr_epochs", "keep", "steps", "partition_chains"), (1, MANY)),
    **dict.fromkeys(("max_returns", "checkpoint_every"), (0, MANY)),
    **dict.fromkeys(("work_steps", "partition_temperatures"), (2, MANY)),
    **dict.fromkeys(("seed", "data_seed"), (0, SEEDS)),
    **dict.fromkeys(("lr", "lr_end", "scale", "clip_norm", "claim_expiry", "rank_timeout"), (0, math.inf, "open")),
    **dict.fromkeys(("rates", "T"), (0, math.inf, "open")),
    **dict.fromkeys(("alpha", "beta", "warmup", "free_bits", "weight_decay"), (0, math.inf)),
    **dict.fromkeys(("delta", "ema", "level"), (0, 1, "open")),
    "L": (2, 1024),
}  # fmt: skip


def check_ranges(options: Any, own: dict[str, Any] | None = None) -> None:
    """Refuses numbers outside of their range, and NaN and infinities everywhere.

    Args:
        options: of a script; those within it are checked too.
        own: ranges of this script's, where they are others.

    Raises:
        ValueError: naming the option as it is typed.
    """
    for f in dataclasses.fields(options):
        value = getattr(options, f.name)
        if dataclasses.is_dataclass(value):
            check_ranges(value, own)
            continue
        limits = (own or {}).get(f.name, RANGES.get(f.name))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            flag = f"--{f.name.replace('_', '-')}" if len(f.name) > 1 else f"--{f.name}"
            if not math.isfinite(number):
                raise ValueError(f"expected a finite number for {flag}, got {number}")
            if limits is not None and not _within(number, limits):
                raise ValueError(f"expected {flag} {_words(limits, number)}, got {number}")


def check_text(options: Any) -> None:
    """Refuses control characters and line breaks in names: they would act on the terminals that show them.

    Raises:
        ValueError: naming the option as it is typed.
    """
    for f in dataclasses.fields(options):
        value = getattr(options, f.name)
        if dataclasses.is_dataclass(value):
            check_text(value)
            continue
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str | Path) and has_controls(str(one)):
                raise ValueError(
                    f"expected {f.name} without control characters and line breaks, got '{visible(str(one))}'; try to "
                    "rename it"
                )


def _within(number: float, limits: Any) -> bool:
    least, greatest = limits[:2]
    return least < number < greatest if len(limits) == 3 else least <= number <= greatest


def _words(limits: Any, number: float) -> str:
    least, greatest = limits[:2]
    if number > greatest:
        return f"<= {greatest:,}"
    sign = ">" if len(limits) == 3 else ">="
    if greatest in (math.inf, MANY, SEEDS):
        return f"{sign} {least}"
    return f"in ({least}, {greatest})" if len(limits) == 3 else f"from {least} to {greatest}"
