"""Boltzmann machines: the machine, its Gibbs sampling, ln Z by enumeration, and the Ising torus as one."""

from .rbm import RBM as RBM
