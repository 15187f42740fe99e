"""Work on tensors at fixed places: run as it is on a CPU, replayed as one CUDA graph on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..devices import captures

# Runs before a capture: libraries set up their work space, caching allocators their blocks.
WARM_UP = 3


class Captured:
    """`body()`, and on CUDA the same as one graph: a launch in place of some dozens.

    The first calls are real ones, uncaptured (so that warming up changes nothing), on a side
    stream. Random numbers follow torch's generator of the device: seeded alike, a replay draws
    what a direct run draws.

    Args:
        body: reads and writes tensors that stay where they are; no number is read back in it.
        device: of those tensors.
        fixed: the tensors it depends on, as they are now; where one of them has moved (an
            optimizer's state that was loaded), the body is captured anew.
        capture: False runs it directly everywhere.

    Attributes:
        refused: why it is not captured, where that was tried and failed.
    """

    def __init__(
        self,
        body: Callable[[], None],
        device: torch.device,
        fixed: Callable[[], Sequence[Tensor]],
        capture: bool = True,
    ) -> None:
        self.body, self.device, self.fixed = body, device, fixed
        self.capture = capture and captures(device)
        self.refused: str | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._places: list[int] = []
        self._runs = 0

    def __call__(self) -> None:
        """One run."""
        if not self.capture or self.refused is not None:
            self.body()
            return
        places = self._now()
        if places != self._places:
            self._graph, self._places, self._runs = None, places, 0
        if self._graph is not None:
            self._graph.replay()
        elif self._runs < WARM_UP:
            self._on_a_side_stream()
            # The first run makes what comes to life late (an optimizer's state).
            self._places = self._now()
            self._runs += 1
        else:
            self._make()

    def _now(self) -> list[int]:
        return list(map(Tensor.data_ptr, self.fixed()))

    def _on_a_side_stream(self) -> None:
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            self.body()
        torch.cuda.current_stream(self.device).wait_stream(side)

    def _make(self) -> None:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self.device)
        try:
            with torch.cuda.graph(graph):
                self.body()
        except RuntimeError as error:  # a synchronising operation somewhere in the program
            self.refused = " ".join(str(error).split())[:300]
            warnings.warn(
                f"this step is not captured, and launched piece by piece: {self.refused}", stacklevel=4
            )
            torch.cuda.synchronize(self.device)
            self.body()
            return
        self._graph = graph
        graph.replay()  # a capture records, and runs nothing
