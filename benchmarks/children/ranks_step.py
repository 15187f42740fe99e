"""Times steps on the ranks that torchrun starts, in turn: with their all-reduce, and without; one JSON line.

torchrun --standalone --nproc-per-node=2 ranks_step.py '{"net": {...}, "repeats": 3, "calls": 5, "device": "cpu"}'
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from nets import Net

import pyrovae as pv
from pyrovae.distributed import Split, World, joined

STEPS = 16  # of an epoch of the data below


class Steps:
    """Full batches of one trainer, epoch after epoch, without its metrics."""

    def __init__(self, net: Net, split: Split | None, batch: int, device: torch.device) -> None:
        vae = net.vae(device)
        x = net.data(device, STEPS * batch)
        self.trainer = pv.Trainer(
            vae.model, vae.guide, x, batch_size=batch, lr=1e-3, compile=True, split=split
        )
        self.device = device

    def block(self, calls: int) -> float:
        """Seconds a step."""
        for _ in range(calls):
            self.trainer.run_steps()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return STEPS * calls


def measure(request: dict[str, Any], world: World) -> dict[str, Any]:
    """Seconds per step of each run, the slowest rank's, by repeat."""
    fields = {k: v for k, v in request["net"].items() if k != "side"}
    net = Net(**{**fields, "hidden": tuple(fields["hidden"])})
    device = torch.device(request["device"])
    batch = net.batch * world.size
    apart = Steps(net, Split(), net.batch, device)
    together = Steps(net, Split(world), batch, device)
    ordered = Steps(net, Split(world, bitwise=True), batch, device)
    bucket = together.trainer.divided.bucket  # type: ignore[union-attr]

    def alone(calls: int) -> float:
        return apart.block(calls) if world.first else 1

    def reduce(calls: int) -> float:
        for _ in range(STEPS * calls):
            bucket.reduce()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return STEPS * calls

    runs: dict[str, Callable[[int], float]] = {
        "one rank alone": alone,
        "ranks without communication": apart.block,
        "ranks, one all-reduce a step": together.block,
        "ranks, bitwise": ordered.block,
        "the all-reduce alone": reduce,
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(request["repeats"] + 1):  # the first one warms up
        for name, run in runs.items():
            world.every(None)  # all start together
            began = time.perf_counter()
            steps = run(request["calls"])
            seconds = max(world.every((time.perf_counter() - began) / steps if steps > 1 else 0.0))
            if repeat:
                times[name].append(seconds)
    bytes_ = bucket.length * 4
    return {"times": times, "bytes": bytes_, "ranks": world.size, "backend": torch.distributed.get_backend()}


def main() -> int:
    request = json.loads(sys.argv[1])
    with joined(request["device"], 900.0) as world:
        assert world is not None, "expected to be started by torchrun"
        found = measure(request, world)
        if world.first:
            Path(request["out"]).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
