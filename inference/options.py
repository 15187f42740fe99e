"""Options that several scripts share. The docstrings below are their --help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PriorName = Literal["standard", "mixture", "vamp"]
GuideName = Literal["diagonal", "full", "flow"]
LikelihoodName = Literal["auto", "bernoulli", "binomial", "gaussian"]
ObjectiveName = Literal["trace-elbo", "mean-field", "renyi"]
DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class DataOptions:
    """Data, and how they are prepared."""

    data: str = "digits"
    """digits, mnist, fashion-mnist, binarized-mnist, linear-gaussian; or a .npy, .npz or .pt file."""
    root: Path | None = None
    """Folder of downloaded data sets (default: $PYROVAE_DATA, then a user cache)."""
    binarise: Literal["dynamic", "static", "threshold"] | None = None
    """Make grey levels binary: redrawn every epoch, drawn once, or cut at one half."""
    data_seed: int = 0
    """Seed of splits and of static binarisation."""


@dataclass(frozen=True)
class SizeOptions:
    """Sizes of the built-in models' parts."""

    likelihood: LikelihoodName = "auto"
    """p(x|z) of the vae; auto takes the one that suits the data's support."""
    latent_dim: int = 8
    """Number of latent dimensions."""
    hidden: tuple[int, ...] = (128, 128)
    """Hidden widths of the encoder; the decoder has them in reverse."""
    components: int = 20
    """Components of a mixture prior, pseudo-inputs of a VampPrior."""
    flow_hidden: tuple[int, ...] = (32,)
    """Hidden widths of each flow transform."""

    def check(self) -> None:
        """Raises ValueError for sizes below 1."""
        for name in ("latent_dim", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if not self.hidden or min((*self.hidden, *self.flow_hidden)) < 1:
            raise ValueError(f"expected hidden widths >= 1, got {self.hidden} and {self.flow_hidden}")


@dataclass(frozen=True)
class ModelOptions(SizeOptions):
    """The generative model and its guide."""

    model: str = "vae"
    """vae, linear-gaussian, or your own: package.module:attribute or file.py:attribute. The attribute
    is a function of the data set that returns a (model, guide) pair or an object with .model and
    .guide; or such a pair or object itself."""
    prior: PriorName = "standard"
    """p(z) of the vae."""
    guide: GuideName = "diagonal"
    """q(z|x) of the vae: diagonal or full-covariance Gaussian, or an inverse autoregressive flow."""


@dataclass(frozen=True)
class LoopOptions:
    """Training by stochastic variational inference."""

    epochs: int = 100
    """Passes over the training data."""
    batch_size: int = 64
    """Data per step."""
    lr: float = 2e-3
    """Learning rate of Adam at the start."""
    lr_end: float | None = 2e-4
    """Learning rate at the end (geometric decay); None for a constant one."""
    warmup: float = 10
    """Epochs over which the KL weight beta rises from 0 to 1; 0 for none."""
    free_bits: float = 0.0
    """Nats per latent site below which the KL is not pressed."""
    patience: int | None = None
    """Stop after so many epochs without a better validation ELBO."""
    clip_norm: float | None = None
    """Largest norm of all gradients together."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, like 0.999; it is what is evaluated and kept."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Run each step as one compiled graph; auto does so in runs of at least 10,000 steps."""
    seed: int = 0
    """Seed of weights, batches and noise."""


@dataclass(frozen=True)
class TrainOptions(LoopOptions):
    """Training by stochastic variational inference."""

    objective: ObjectiveName = "trace-elbo"
    """Pyro's Trace_ELBO, TraceMeanField_ELBO (analytic KL, where valid) or RenyiELBO (K = 2)."""


@dataclass(frozen=True)
class KeepOptions:
    """What survives an interruption, and what is logged."""

    resume: bool = False
    """Continue the unfinished run in --out as it was started; start one where there is none."""
    checkpoint_every: int = 1
    """Epochs from one checkpoint to the next; 0 for none."""
    keep: int = 2
    """Checkpoints kept while the run lasts."""
    tensorboard: bool = False
    """Also log scalars for TensorBoard, in the run folder (needs the package tensorboard)."""


@dataclass(frozen=True)
class MachineOptions:
    """Where it runs, and what is shown."""

    device: DeviceName = "auto"
    """auto takes a GPU where there is one."""
    quiet: bool = False
    """No progress bars."""
    debug: bool = False
    """Show the traceback of an error."""
