"""A drop-in for `pyro.infer.SVI` that compiles, and steps on CUDA as one graph."""

from .svi import SVI as SVI
