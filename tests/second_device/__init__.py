"""A device beside the CPU, on any machine: `load()`, then `torch.ones(3, device="second")`.

It computes on the CPU and is as strict as a GPU about what lies where, so that a CPU finds what would fail on CUDA.
torch knows one such device a process, and keeps it: a test asks a process of its own (`python -m tests.second_device`).
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import types
from pathlib import Path
from typing import NamedTuple

import torch

NAME = "second"


class Extent(NamedTuple):
    """How much is asked: of a few programs, or of all; all questions of all of them."""

    few: bool = False
    thorough: bool = False


SOURCE = Path(__file__).with_name("device.cpp")


def build(folder: Path) -> Path:
    """Compiles the device (half a minute), unless the folder has it for this source and this torch.

    Raises:
        RuntimeError: with the words of the compiler.
    """
    from torch.utils.cpp_extension import include_paths, library_paths

    key = hashlib.blake2b(SOURCE.read_bytes() + torch.__version__.encode(), digest_size=8).hexdigest()
    library = folder / f"second-{key}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{library.name}.part"
    command = ["g++", "-std=c++20", "-O1", "-w", "-shared", "-fPIC", str(SOURCE), "-o", str(made)]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"]
    command += [f"-I{path}" for path in include_paths()] + [f"-L{path}" for path in library_paths()]
    done = subprocess.run([*command, "-ltorch_cpu", "-lc10"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the second device cannot be compiled:\n{done.stderr}")
    return made.rename(library)


def load(folder: Path) -> torch.device:
    """Registers the device with torch."""
    torch.ops.load_library(build(folder))
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _module())
    torch.utils.generate_methods_for_privateuse1_backend(for_module=False)
    return torch.device(NAME, 0)


def _module() -> types.ModuleType:
    """`torch.second`, with the functions that `torch.cuda` has of these names."""
    noise = getattr(torch.ops, NAME)

    def seed(value: int) -> None:
        noise.seed(value - 2**64 if value >= 2**63 else value)

    module = types.ModuleType(f"torch.{NAME}")
    for name, function in {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "device": lambda device: contextlib.nullcontext(),
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "manual_seed": seed,
        "manual_seed_all": seed,
        "get_rng_state": lambda device=None: noise.get_state(),
        "set_rng_state": lambda state, device=None: noise.set_state(state),
        "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16],
    }.items():
        setattr(module, name, function)
    return module
