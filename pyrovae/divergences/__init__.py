"""Divergences of densities that can be drawn from, and the KL terms of a program."""

from .divergence import Divergence as Divergence
from .divergence import js as js
from .divergence import kl as kl
from .elbo_surgery import elbo_surgery as elbo_surgery
from .forward_kl import ForwardKL as ForwardKL
from .forward_kl import forward_kl as forward_kl
from .surgery_terms import ElboSurgery as ElboSurgery
