"""Memory of log-weights against the number of samples: flat, since a chunk is all that is alive."""

from __future__ import annotations

from importance import program_of
from nets import Net
from settings import Settings
from timing import Row

import pyrovae as pv
from pyrovae.evidence.core.log_weights import iterate
from pyrovae.programs.memory import LiveBytes


def bench_memory(net: Net, settings: Settings, counts: tuple[int, ...] = (500, 5000, 50_000)) -> list[Row]:
    """Peak of live tensor bytes of `iterate` beyond the block it yields, against K."""
    data = 20
    program = program_of(net.vae(settings.device), net.data(settings.device, data))
    peaks = {}
    for k in counts:
        with LiveBytes() as counter:
            for _ in iterate(program, k, chunk=pv.Chunk(data, 128)):
                pass
        peaks[k] = counter.peak - data * k * 4
    case = "memory of log_weights beyond its result"
    return [
        Row(case, f"K = {k:,}", "MiB", (peak / 2**20,), peak / peaks[counts[0]]) for k, peak in peaks.items()
    ]
