"""Traces a computation on tensors into one graph, its noise lifted into inputs.

After `torch.fx` the graph holds every arithmetic operation and nothing of Pyro: handlers,
traces and distributions are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from ..watch.reachable import search
from ..watch.reading import Ran, is_of_validation, place_of
from ..watch.recorded import recording
from ..watch.snapshot import Snapshot
from ..watch.undisturbed import UntraceableError as UntraceableError
from ..watch.undisturbed import known_literals, undisturbed
from .decompositions import TABLE
from .noise import Noise, lift_noise, new_input
from .one_device import stay_on

aten = torch.ops.aten


@dataclass(frozen=True)
class Graph:
    """A traced computation: flat tensors in, a flat list of tensors out.

    Attributes:
        module: called as `module(*parameters, *inputs, *buffers, *noise)`.
        noise: in the order in which an eager run draws.
        buffers: tensors that the computation reads beside (the live ones): buffers of modules, attributes.
        ran: the code of a user's that ran.
    """

    module: fx.GraphModule
    noise: list[Noise]
    buffers: list[Tensor]
    ran: Ran = field(default_factory=lambda: Ran([]))

    def same_as(self, other: Graph) -> bool:
        """Whether both compute the same, of the same tensors."""
        ours, theirs = _constants(self.module), _constants(other.module)
        return (
            self.module.code == other.module.code
            and [n.about() for n in self.noise] == [n.about() for n in other.noise]
            and [id(b) for b in self.buffers] == [id(b) for b in other.buffers]
            and len(ours) == len(theirs)
            and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        )


def _constants(module: fx.GraphModule) -> list[Tensor]:
    names = [str(n.target) for n in module.graph.nodes if n.op == "get_attr"]
    return [c for c in (getattr(module, name) for name in names) if isinstance(c, Tensor)]


VALIDATION = "a law of it validates its numbers (validate_args=True), which reads them"


def trace(
    fn: Callable[[list[Tensor], list[Tensor]], Sequence[Tensor]],
    parameters: Sequence[Tensor],
    inputs: Sequence[Tensor],
    modules: Iterable[nn.Module] = (),
    programs: Mapping[str, Any] | None = None,
    literals: int = 1,
    laws: bool = False,
) -> Graph:
    """Traces `fn(parameters, inputs)` with shapes as given and values unknown; nothing outside is changed by it.

    Args:
        fn: the computation; may call `torch.autograd.grad`.
        parameters: leaves that it differentiates by.
        inputs: all other tensors that change between runs.
        modules: whose registered buffers it may read.
        programs: by name, what it runs of a user's: Python state that they change is put back.
        literals: tensors of up to so many elements, made of literals, are known by their numbers.
        laws: noise may have a law that the computation gives (a Gamma's); else it is refused.

    Raises:
        UntraceableError: control flow that depends on values, a draw that cannot be lifted, a
            write to something outside, or a tensor that is neither given nor a buffer: as a
            constant of the graph it would go stale without anyone noticing.
    """
    leaves = [p.detach().requires_grad_(p.requires_grad) for p in parameters]
    snapshot = Snapshot(programs or {})
    snapshot.refuse_streams()
    code: Any = []
    try:
        with recording() as code, undisturbed() as mode, known_literals(literals):
            traced = make_fx(mode.guard(fn), TABLE, tracing_mode="fake", _allow_non_fake_inputs=True)
            module = traced(leaves, list(inputs))
    except UntraceableError as error:
        why = VALIDATION if is_of_validation(error) else str(error)
        raise UntraceableError(f"{why}{place_of(error)}") from error
    except (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode) as error:
        # `if z.sum() > 0`, `.item()`, boolean indexing: one graph cannot hold both ways.
        why = VALIDATION if is_of_validation(error) else "its course depends on values that it computes"
        raise UntraceableError(f"{why}{place_of(error)}") from error
    except NotImplementedError as error:  # said by an objective
        raise UntraceableError(f"{error}{place_of(error)}") from error
    except Exception as error:
        raise UntraceableError(f"{_first_line(error)}{place_of(error)}") from error
    finally:
        changed = snapshot.restore()
    ran = Ran(code, mode.read)
    ran.ignored = {place for _, _, place in changed if place is not None}
    for owner, key, place in changed:
        # What no code of a user's names, a library keeps for itself: a cache.
        if place is None and key.startswith("_") and not ran.reads(key):
            continue
        if place is None:
            raise UntraceableError(f"it changes {key!r} of {owner} as it runs{ran.where(key)}")
    # Flat arguments: the graph was traced on two lists.
    module.graph.set_codegen(fx.graph.CodeGen())
    _refuse_writes(module)
    buffers = _lift_buffers(module, modules, search(ran, programs or {}).tensors)
    noise = lift_noise(module, mode.places, laws)
    stay_on(module, next((t.device for t in (*parameters, *inputs)), torch.device("cpu")))
    module.graph.lint()
    return Graph(module, noise, buffers, ran)


def _lift_buffers(
    module: fx.GraphModule, modules: Iterable[nn.Module], attributes: Mapping[int, Tensor]
) -> list[Tensor]:
    known = {i: t for i, t in attributes.items() if not t.requires_grad}
    for root in modules:
        for part in root.modules():
            for tensor in (*part._buffers.values(), *part._parameters.values()):
                if tensor is not None and not tensor.requires_grad:
                    known[id(tensor)] = tensor
    buffers: list[Tensor] = []
    for node in list(module.graph.nodes):
        if node.op != "get_attr":
            continue
        constant = getattr(module, str(node.target))
        if not isinstance(constant, Tensor):
            continue
        if all(u.target in (aten.lift_fresh_copy.default, aten.lift_fresh.default) for u in node.users):
            continue  # a literal such as torch.tensor(0.5) in the program's code
        if id(constant) not in known:
            kind = "a trainable tensor" if constant.requires_grad else "a tensor"
            raise UntraceableError(
                f"it uses {kind} of shape {tuple(constant.shape)} that is neither an argument, nor a registered "
                "parameter or buffer (pyro.module, pyro.param, register_buffer)"
            )
        buffers.append(constant)
        new_input(module, f"buffer_{len(buffers)}", node)
        module.graph.erase_node(node)
    return buffers


def _refuse_writes(module: fx.GraphModule) -> None:
    """Running statistics and the like: an in-place write to what the graph did not make itself."""
    outside: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            outside.add(node)
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        schema = node.target._schema
        first = node.args[0] if node.args else None
        aliases = any(r.alias_info is not None for r in schema.returns)
        if schema.is_mutable and first in outside:
            raise UntraceableError(f"it writes in place ({node.target}) to a tensor from outside")
        if aliases and not schema.is_mutable and first in outside:
            outside.add(node)  # a view of something from outside


def _first_line(error: Exception) -> str:
    """An error in a line: without the shapes that Pyro writes below it, and NumPy by its name."""
    line = next((" ".join(text.split()) for text in str(error).splitlines() if text.strip()), "")
    if "dynamo-optimized" in line:
        return "it runs a net of torch.compile, which no other graph can hold; try the net as it was"
    if ".numpy()" in line:
        return "it hands tensors to NumPy (.numpy()), which cannot be in a graph; try torch's functions"
    return f"{type(error).__name__}: {line[:300]}"
