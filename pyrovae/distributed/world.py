"""The processes of one run: which of them this is, and what they tell each other."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = 300.0  # seconds


class RankLost(RuntimeError):
    """Another process of the run has gone, or was not heard of within the timeout."""


class Elsewhere(RuntimeError):
    """An error that another process of the run reports; this one ends in silence."""


@dataclass(frozen=True)
class World:
    """One process among those that torchrun started; alone by default.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        timeout: seconds after which a process that is not heard of counts as lost.
        restarts: how often torchrun has started the processes anew.
        grouped: whether it speaks to the process group (of one process, too). A world of its own does not, whatever
            group there is: one rank may train something of its own beside the others.
    """

    rank: int = 0
    size: int = 1
    timeout: float = TIMEOUT
    restarts: int = 0
    grouped: bool = False

    def _speaks(self) -> bool:
        if not self.grouped and self.size > 1:
            raise ValueError(
                f"expected a world of {self.size} ranks that speaks to a process group, got one of its own; try "
                "pyrovae.distributed.joined(), or grouped=True"
            )
        return self.grouped

    @property
    def first(self) -> bool:
        """Whether this is the process that prints, logs and saves."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> None:
        """Sum over ranks, in place: the same bits on each of them."""
        if self._speaks():
            with _heard():
                dist.all_reduce(tensor)

    def gather(self, own: Tensor, out: Tensor) -> None:
        """`own` of every rank, in their order, `[size * len(own), ...]`."""
        if not self._speaks():
            out.copy_(own)
            return
        with _heard():
            dist.all_gather_into_tensor(out, own)

    def share(self, content: bytes) -> bytes:
        """Gives the first rank's content to all."""
        if not self._speaks():
            return content
        with _heard():
            length = torch.tensor([len(content)], device="cpu")
            dist.broadcast(length, 0)
            buffer = torch.zeros(int(length), dtype=torch.uint8, device="cpu")
            if self.first:
                buffer.copy_(_bytes(content))
            dist.broadcast(buffer, 0)
        return content if self.first else buffer.numpy().tobytes()

    def share_json(self, value: Any = None) -> Any:
        """Plain values (dicts, lists, numbers, text) of the first rank."""
        return json.loads(self.share(json.dumps(value).encode()))

    def every(self, value: Any) -> list[Any]:
        """Plain values of all ranks, in their order."""
        if not self._speaks():
            return [value]
        content = json.dumps(value).encode()
        with _heard():
            lengths = torch.zeros(self.size, dtype=torch.long, device="cpu")
            dist.all_gather_into_tensor(lengths, torch.tensor([len(content)], device="cpu"))
            widest = int(lengths.max())
            own, all_ = (
                torch.zeros(widest, dtype=torch.uint8, device="cpu"),
                torch.zeros(self.size * widest, dtype=torch.uint8, device="cpu"),
            )
            own[: len(content)] = _bytes(content)
            dist.all_gather_into_tensor(all_, own)
        rows = all_.view(self.size, widest)
        return [json.loads(rows[i, :n].numpy().tobytes()) for i, n in enumerate(lengths.tolist())]

    def check_shared(self, folder: str | os.PathLike[str]) -> None:
        """Refuses a folder that is another one on another machine.

        Raises:
            ValueError: on the first rank, naming a rank that does not see what the first has written.
            Elsewhere: on the others.
        """
        token = self.share_json(uuid.uuid4().hex)
        mark = Path(folder) / f".shared-{token}"
        with self.together():
            if self.first:
                mark.touch()
        try:
            with self.together():
                if not mark.exists():
                    raise ValueError(
                        f"expected a folder that all ranks share, got {folder}, where this one does not see what rank "
                        "0 has written; try a folder on a network file system"
                    )
        finally:
            if self.first:
                mark.unlink()

    @contextmanager
    def together(self) -> Iterator[None]:
        """A body that runs on every rank, without messages in it: an error on one is one on all.

        Raises:
            ValueError: on the first rank, for an error on another, naming it.
            Elsewhere: on the others.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        found = self.every(None if error is None else " ".join(str(error).split()))
        wrong = [(i, text) for i, text in enumerate(found) if text is not None]
        if not wrong:
            return
        if error is not None and self.first:
            raise error
        if self.first:
            raise ValueError(f"on rank {wrong[0][0]} of {self.size}: {wrong[0][1]}")
        raise Elsewhere(wrong[0][1]) from error


def _bytes(content: bytes) -> Tensor:
    return (
        torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if content
        else torch.zeros(0, dtype=torch.uint8, device="cpu")
    )


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo and nccl have no type of their own for it
        raise RankLost(
            "expected to hear of every rank, got none from at least one of them, which has ended or hangs "
            f"({plain(error).partition('. ')[0][:100]}); the run goes on from its last checkpoint with --resume"
        ) from error


def plain(error: Exception) -> str:
    """On one line, without the files of gloo's own source."""
    return re.sub(r"\[/[^]]*\] ?", "", " ".join(str(error).split())).strip()
