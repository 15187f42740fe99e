"""How the processes that torchrun started find each other, and not what a former attempt has left."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from .world import TIMEOUT, Elsewhere, RankLost, World, plain

POLL = 0.05  # seconds


def launched() -> bool:
    """Whether torchrun (or whoever sets RANK and WORLD_SIZE) has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Whether this process speaks for the run; known before the others are met."""
    return int(os.environ.get("RANK", "0")) == 0 if launched() else True


@contextmanager
def joined(device: str = "auto", timeout: float = TIMEOUT) -> Iterator[World | None]:
    """The world that torchrun started this process in; None outside of torchrun.

    gloo between CPUs, nccl between GPUs: each rank of a machine takes the GPU of its local rank.

    Args:
        device: "cuda", "cpu", or "auto" for a GPU where there is one.
        timeout: seconds to wait for another rank.

    Raises:
        ValueError: a timeout that is not positive; ranks without a GPU of their own; GPUs on some
            machines only; a port in use.
        RankLost: no word from the other ranks within the timeout.
    """
    if not launched():
        yield None
        return
    if not timeout > 0:
        raise ValueError(f"expected a timeout > 0 seconds, got {timeout}")
    gpu = device != "cpu" and (device == "cuda" or torch.cuda.is_available())
    _join("cpu:gloo,cuda:nccl" if gpu and torch.cuda.is_available() else "gloo", timeout)
    world = World(dist.get_rank(), dist.get_world_size(), timeout, grouped=True)
    with world.together():
        if gpu:
            _take_gpu()
    kinds = world.every("a GPU" if gpu else "a CPU")
    if len(set(kinds)) > 1:
        text = f"expected ranks on devices of one kind, got {', '.join(kinds)}; try --device cpu, or cuda everywhere"
        raise ValueError(text) if world.first else Elsewhere(text)
    # It rises on the machine that had the failure alone.
    restarts = max(world.every(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))))
    yield replace(world, restarts=restarts)
    # Not after an error: the others may be gone, and a farewell would wait for them.
    dist.destroy_process_group()


def _join(backend: str, timeout: float) -> None:
    limit = timedelta(seconds=timeout)
    where = ":".join(os.environ.get(name, f"{name}?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    try:
        store, rank, size = next(rendezvous("env://", timeout=limit))
        attempt = meet(PrefixStore("pyrovae", store), rank, size, timeout)
        own = PrefixStore(attempt, store)
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=limit)
    except RankLost:
        raise
    except (RuntimeError, ValueError) as error:
        if "EADDRINUSE" in str(error):
            raise ValueError(
                f"expected a free port for the ranks to meet at, got {where}, which is in use; try another one "
                "(torchrun --master-port), or torchrun --standalone on one machine"
            ) from error
        raise RankLost(
            f"expected to meet the other ranks at {where}, got none of at least one of them, which has ended or cannot "
            f"be reached ({plain(error)[:160]})"
        ) from error


def _take_gpu() -> None:
    local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= here:
        raise ValueError(
            f"expected a GPU for each rank of this machine, got {here} for local rank {local}; try "
            f"--nproc-per-node={max(here, 1)}, or --device cpu"
        )
    torch.cuda.set_device(local)


def meet(store: Store, rank: int, size: int, timeout: float) -> str:
    """A name for this attempt that all of its ranks know.

    When torchrun restarts its processes they get the same store again, in which the addresses of
    the dead ones still stand: gloo would wait for those. The restart count is no name for an
    attempt either, since on a machine without a failure it does not rise. So the first rank writes a
    name, each other one answers to it with a name of its own, and goes by the first rank's when it
    sees its own answered to: what stands there from a former attempt is answered to by nobody.

    Raises:
        RankLost: where the others have not come within `timeout` seconds.
    """
    own, until = uuid.uuid4().hex, time.monotonic() + timeout
    if rank == 0:
        store.set("first", own)
        keys = [f"{own}/{r}" for r in range(1, size)]
        while not all(store.check([key]) for key in keys):
            _wait(until, f"{sum(store.check([key]) for key in keys) + 1} of {size} ranks")
        names = [own, *(store.get(key).decode() for key in keys)]
        store.set(f"{own}/all", json.dumps(names))
        return own
    answered = ""
    while True:
        if store.check(["first"]):
            first = store.get("first").decode()
            if first != answered:
                store.set(f"{first}/{rank}", own)
                answered = first
            if store.check([f"{first}/all"]) and json.loads(store.get(f"{first}/all"))[rank] == own:
                return first
        _wait(until, "no first one")


def _wait(until: float, found: str) -> None:
    if time.monotonic() > until:
        raise RankLost(f"expected to meet the other ranks within the timeout, got {found}")
    time.sleep(POLL)
