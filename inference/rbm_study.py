"""Boltzmann machines against exact answers: ln Z of the Ising torus written as one, and MNIST beside scikit-learn."""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["rbm_study", *sys.argv[1:]]))

import torch
import tyro
from torch import Tensor

import pyrovae as pv
from pyrovae.data import T_CRITICAL, IsingTorus
from pyrovae.inference.options.ranges import MANY
from pyrovae.inference.running.running import console, run_script
from pyrovae.models.boltzmann import RBM
from pyrovae.models.boltzmann.ising_machine import ising_log_constant
from pyrovae.objectives import PersistentCD

# Draws of Swendsen-Wang, of which chains that run backwards start.
SEED_OF_DRAWS = 1


@dataclass(frozen=True)
class Options:
    """Options of rbm_study."""

    RANGES: ClassVar = {"temperatures": (2, MANY), "hidden": (1, 25), "chains": (2, MANY)}

    study: tyro.conf.Positional[Literal["ising", "mnist"]]
    """ising: ln Z by AIS, forwards and backwards, against Kaufman. mnist: persistent CD and scikit-learn's
    BernoulliRBM on fixed-binarised MNIST, exact test log-likelihood of both."""
    L: int = 16
    """Side of the torus."""
    T: tuple[float, ...] = (2.0, T_CRITICAL, 3.0)
    """Temperatures of the torus."""
    temperatures: int = 10_000
    """Temperatures of AIS, four fifths of them on inverse temperatures in [0.8, 1]."""
    chains: int = 100
    """Chains of AIS."""
    hidden: int = 20
    """Hidden units on MNIST (at most 25, to be enumerated)."""
    epochs: int = 20
    """Epochs of scikit-learn's machine at each of its rates; ours gets the CPU seconds of its best one, at most."""
    rates: tuple[float, ...] = (0.1, 0.05, 0.01)
    """Learning rates of scikit-learn's; the one with the best exact validation log-likelihood is taken."""
    seed: int = 0
    """Seed of all draws."""
    debug: bool = False
    """Show the traceback of an error."""


def run(options: Options) -> None:
    """The study asked for."""
    (ising if options.study == "ising" else mnist)(options)


def ising(options: Options) -> None:
    """One line a temperature and direction: estimate - exact, standard error, effective chains."""
    betas = pv.spaced_betas(options.temperatures, (0.8, 0.2))
    for T in options.T:
        law = IsingTorus(options.L, T)
        machine = RBM.from_ising(law).float()
        exact = law.log_partition + ising_log_constant(law)
        random = torch.Generator().manual_seed(options.seed + SEED_OF_DRAWS)
        for way in ("forwards", "backwards"):
            start = time.process_time()
            draws = None if way == "forwards" else law.sample((options.chains,), random)
            found = pv.log_partition(
                machine.model, betas=betas, num_chains=options.chains, draws=draws, seed=options.seed
            )
            off = found.value - exact
            console.print(
                f"T {T:.4f} {way:9s}: ln Z - exact = {off:+.4f} ± {found.error:.4f} ({off / found.error:+.1f} SE), "
                f"exact {exact:.4f}, ESS {found.ess:.1f} of {found.num_chains} chains, {len(betas):,} temperatures, "
                f"{time.process_time() - start:.0f} CPU s",
                highlight=False,
            )


def mnist(options: Options) -> None:
    """Exact mean log-likelihood of the validation and test data, nats per image."""
    data = pv.data.load("binarized-mnist")
    found = []
    for lr in options.rates:
        machine, took = scikit_learn(data.train, options, lr)
        valid, test = likelihoods(machine, data.valid, data.test)
        found.append((valid, test, took, lr))
        console.print(
            f"scikit-learn, rate {lr:g}, {options.epochs} epochs: {took:.0f} CPU s, valid {valid:.3f}",
            highlight=False,
        )
    valid, test, seconds, rate = max(found)
    console.print(
        f"scikit-learn, best rate {rate:g}: {seconds:.0f} CPU s, valid {valid:.3f}, test {test:.3f} nats",
        highlight=False,
    )
    # How many epochs those seconds hold: a step is timed, the first ones of a process not counted.
    machine = _start(data.train, options)
    _fit(machine, data.train[:1000], 1, options)
    start = time.process_time()
    _fit(machine, data.train[:10_000], 1, options)
    an_epoch = (time.process_time() - start) * len(data.train) / 10_000
    epochs = max(1, int(seconds / an_epoch))
    start = time.process_time()
    ours = _start(data.train, options)
    _fit(ours, data.train, epochs, options)
    took = time.process_time() - start
    valid, test = likelihoods(ours, data.valid, data.test)
    console.print(
        f"pyrovae, persistent CD, {epochs} epochs: {took:.0f} CPU s, valid {valid:.3f}, test {test:.3f} nats",
        highlight=False,
    )


def scikit_learn(x: Tensor, options: Options, lr: float) -> tuple[RBM, float]:
    """scikit-learn's persistent CD on the same data, as one of our machines; and its seconds."""
    from sklearn.neural_network import BernoulliRBM

    theirs = BernoulliRBM(
        options.hidden, learning_rate=lr, batch_size=100, n_iter=options.epochs, random_state=options.seed
    )
    start = time.process_time()
    theirs.fit(x.numpy())
    took = time.process_time() - start
    machine = RBM(x.shape[1], options.hidden)
    with torch.no_grad():
        machine.weight.copy_(torch.from_numpy(theirs.components_).mT)
        machine.visible_bias.copy_(torch.from_numpy(theirs.intercept_visible_))
        machine.hidden_bias.copy_(torch.from_numpy(theirs.intercept_hidden_))
    return machine, took


def likelihoods(machine: RBM, *splits: Tensor) -> list[float]:
    """Exact mean ln p(x) of each, nats per datum."""
    log_z = machine.exact_log_partition().value
    with torch.no_grad():
        return [-float(machine.free_energy(x).double().mean()) - log_z for x in splits]


def _start(x: Tensor, options: Options) -> RBM:
    torch.manual_seed(options.seed)
    return RBM.initialised_to(x, options.hidden)


def _fit(machine: RBM, x: Tensor, epochs: int, options: Options) -> None:
    pv.fit(
        machine.model,
        machine.guide,
        x,
        objective=PersistentCD(1, 100),
        batch_size=100,
        epochs=epochs,
        lr=pv.Exponential(5e-3, 2e-4, epochs),
        ema=0.999,
        seed=options.seed,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "rbm_study", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
