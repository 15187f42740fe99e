"""Options of data, models and training. The docstrings below are the --help of the scripts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyrovae.data.tables.columns import line_of

PresetName = Literal["lecture", "keras", "iwae", "vampprior"]
PriorName = Literal["standard", "diagonal", "mixture", "vamp", "flow-spline", "flow-maf", "flow-coupling"]
GuideName = Literal["diagonal", "full", "low-rank", "mixture", "flow", "spline-flow", "bottom-up", "top-down"]
LikelihoodName = Literal[
    "auto",
    "bernoulli",
    "binomial",
    "categorical",
    "continuous-bernoulli",
    "discretized-logistic",
    "discretized-logistic-mixture",
    "gaussian",
    "gaussian-fixed",
    "gaussian-per-dim",
    "heteroscedastic-gaussian",
    "student-t",
    "poisson",
    "negative-binomial",
    "zero-inflated-negative-binomial",
    "gamma",
    "log-normal",
    "beta",
]
NetworkName = Literal["mlp", "gated", "conv", "residual"]
ActivationName = Literal["relu", "tanh", "elu", "gelu", "silu", "leaky-relu", "softplus"]
ObjectiveName = Literal["trace-elbo", "mean-field", "renyi", "iwae", "dreg", "stl", "cd", "pcd", "tempering"]
LrScheduleName = Literal["exponential", "cosine", "iwae", "constant"]

LARGEST = 1_000_000  # of a width: two such layers have more weights than any memory holds


@dataclass(frozen=True)
class DataOptions:
    """Data, and how they are prepared."""

    data: str = "digits"
    """digits, mnist, fashion-mnist, binarized-mnist, linear-gaussian, ising; or a .npy, .npz, .pt, .csv, .parquet,
    .h5ad file."""
    root: Path | None = None
    """Folder of downloaded data sets (default: $PYROVAE_DATA, then a user cache)."""
    standardize: bool = False
    """Centre and scale each column by the training rows inside the model; evidence, samples and reconstructions stay
    in the data's own units."""
    log_columns: tuple[str, ...] = ()
    """Positive columns whose logarithm is standardised."""
    columns: str | None = None
    """Roles of a table's columns: a TOML file with lines such as age = "real" (or positive, count, binary,
    category, ordinal, label, ignore; of ordered words grade = {role = "ordinal", order = ["low", "high"]}), such lines
    themselves, or auto. What is not given is guessed, and the guess printed."""
    label_column: str | None = None
    """Column of a table, or of an .h5ad file's obs, that holds the labels."""
    layer: str | None = None
    """Layer of an .h5ad file, in place of X."""
    missing: Literal["refuse", "ignore"] = "refuse"
    """NaN and empty cells: an error, or values that were not observed, which likelihood and encoder leave out."""
    binarise: Literal["dynamic", "static", "threshold"] | None = None
    """Make grey levels binary: redrawn every epoch, drawn once, or cut at one half."""
    data_seed: int = 0
    """Seed of splits, of static binarisation, and of simulated data."""
    L: int | None = None
    """Side of the Ising torus (default 8)."""
    T: tuple[float, ...] | None = None
    """Its temperature in units of J (default: critical); of several, the data are the mixture."""
    train_size: int | None = None
    """Configurations of it simulated for training (default 10000)."""
    condition: tuple[str, ...] = ()
    """Condition c of models of p(x|c) (--model conditional): label, names of a table's columns, or both. Evidence
    is then ln p(x|c)."""
    labelled: int | Literal["all"] | None = None
    """Training data whose labels --model semi-supervised is given, evenly over the classes, or all that are known
    (labels below 0 and empty cells are not)."""

    def __post_init__(self) -> None:
        if self.columns is not None:  # the run keeps the roles, and needs no file
            try:
                object.__setattr__(self, "columns", line_of(self.columns))
            except OSError as error:  # as all wrong options are told
                raise ValueError(str(error)) from None


@dataclass(frozen=True)
class SizeOptions:
    """The built-in vae: a preset, and what differs from it. What is not given is the preset's."""

    preset: PresetName | None = None
    """A published vae. Lecture: 784-400-2, ReLU; keras: convolutions, 2 latents;
    iwae: 784-200-200-50, tanh (Burda et al. 2016); vampprior: gated 300-300, 40 latents, 500 pseudo-inputs (Tomczak &
    Welling 2018). Options given beside it override it, one by one."""
    likelihood: LikelihoodName = "auto"
    """p(x|z). auto: bernoulli for bits and binomial for whole numbers >= 0, whose ln p(x) is of a probability mass;
    gaussian for real numbers, whose ln p(x) is of a density and not comparable with that of a mass. What was taken is
    printed. The scale of a gaussian is one number, learned; that of gaussian-fixed stays at --scale;
    gaussian-per-dim learns one for each dimension of x; that of heteroscedastic-gaussian and student-t (for outliers)
    comes from the decoder. Counts without a largest one: poisson, negative-binomial (overdispersed),
    zero-inflated-negative-binomial. Positive numbers: gamma, log-normal; between 0 and 1: beta."""
    scale: float = 1.0
    """Standard deviation of a gaussian likelihood, or its start where it is learned."""
    likelihood_components: int = 5
    """Components of a discretized-logistic-mixture."""
    network: NetworkName | None = None
    """Encoder and decoder (default mlp): perceptrons, gated perceptrons, convolutions, or convolutions with residual
    blocks. Flat data of a known image shape are reshaped inside."""
    activation: ActivationName | None = None
    """Nonlinearity of the networks (default: tanh in mlp, relu in conv and residual; gated ones have none)."""
    latent_dim: int | None = None
    """Number of latent dimensions (default 8)."""
    hidden: tuple[int, ...] | None = None
    """Hidden widths of the encoder (default 128 128); the decoder has them in reverse. Of conv and residual
    networks: the one dense layer after the convolutions (default 128). Of a diffusion's mlp: one width, once for each
    residual block (default 256 256 256). Of an rbm: its hidden units (default 500)."""
    channels: tuple[int, ...] | None = None
    """Channels of conv and residual networks (default 32 64), at stride 2; the decoder has them in reverse. Of a
    diffusion (--network conv): of its U-Net's resolutions."""
    components: int | None = None
    """Components of a mixture prior, pseudo-inputs of a VampPrior (default 20)."""
    rank: int = 2
    """Rank of a low-rank guide's covariance beside its diagonal."""
    guide_components: int = 5
    """Components of a mixture guide."""
    flow_hidden: tuple[int, ...] | None = None
    """Hidden widths of each flow transform, of prior and guide (default 32)."""
    flow_transforms: int | None = None
    """Transforms of a flow prior (default 3; coupling 4) and of a flow guide (default 2)."""
    levels: int | None = None
    """Levels T of a hierarchical model (default: as many as --widths, else 3)."""
    widths: tuple[int, ...] | None = None
    """Widths of its latents z1 (next to x) ... zT (default: 64, halved from level to level down to 8)."""
    level_width: int = 128
    """Width of the networks between its levels."""
    level_blocks: int = 1
    """Residual blocks of each of them."""
    stream: int | None = None
    """Width of a deterministic stream beside its latents, by which each level sees all those above (default: none,
    a Markov chain)."""

    diffusion_steps: int | None = None
    """Steps T of a diffusion in posterior form, whose evidence can be estimated (moderate T); default: the bound in
    continuous time."""
    noise_schedule: Literal["learned", "linear"] = "learned"
    """-ln SNR of a diffusion against time; learned for low variance of the bound."""
    frequencies: tuple[int, ...] | None = None
    """Exponents n of a denoiser's Fourier features sin(2^n pi z), cos(2^n pi z) (default: by the levels)."""
    denoiser: Literal["noise", "levels"] = "noise"
    """Network of a diffusion: of the noise, or (at most 32 grey levels) one of each element's level, which takes what
    the noisy value itself says exactly."""
    dropout: float = 0.0
    """Share of the inputs of --denoiser levels that are left out in training."""

    def check(self) -> None:
        """Raises ValueError for sizes below 1 or beyond every machine, and scales that are not positive."""
        for name in (
            "latent_dim",
            "components",
            "rank",
            "guide_components",
            "likelihood_components",
            "flow_transforms",
            "levels",
            "level_width",
            "stream",
            "diffusion_steps",
        ):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= LARGEST:
                raise ValueError(f"expected 1 <= {name} <= {LARGEST:,}, got {value}")
        for name in ("hidden", "channels", "flow_hidden", "widths"):
            widths = getattr(self, name)
            if widths is not None and (not widths or min(widths) < 1 or max(widths) > LARGEST):
                raise ValueError(f"expected {name} to be widths from 1 to {LARGEST:,}, got {widths}")
        if self.widths and self.levels not in (None, len(self.widths)):
            raise ValueError(f"expected one width for each of {self.levels} levels, got {self.widths}")
        if not 0 <= self.level_blocks <= LARGEST:
            raise ValueError(f"expected 0 <= level_blocks <= {LARGEST:,}, got {self.level_blocks}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"expected dropout in [0, 1), got {self.dropout}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"expected a positive finite scale, got {self.scale}")


@dataclass(frozen=True)
class ModelOptions(SizeOptions):
    """The generative model and its guide."""

    model: str = "vae"
    """vae, conditional, semi-supervised, markov, hierarchical, diffusion, rbm, linear-gaussian, or your own:
    package.module:attribute or file.py:attribute.
    The attribute is a function of the data set that returns a (model, guide) pair or an object with .model and
    .guide; or such a pair or object itself."""
    prior: PriorName | None = None
    """p(z) of the vae (default standard; with --preset vampprior: vamp; of a conditional model a Gaussian p(z|c))."""
    guide: GuideName | None = None
    """q(z|x) of the vae (default diagonal): diagonal, low-rank or full-covariance Gaussian, a mixture of diagonal
    ones, or an inverse autoregressive flow, affine or of splines. Of a hierarchical model: top-down (the ladder, its
    default) or bottom-up."""


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
    """Learning rate at the end; None for a constant one (cosine: for 0)."""
    lr_schedule: LrScheduleName = "exponential"
    """Geometric decay, half a cosine, the eight stages of Burda et al. 2016 (down to a tenth, stretched over the
    epochs: theirs are 3280), or constant."""
    lr_epochs: int | None = None
    """Epochs over which the learning rate falls, after which it stays (default: all of them; of a run that is continued
    those that it had)."""
    group: tuple[str, ...] = ()
    """Learning rates of their own, PREFIX=FACTOR: --group prior=0.1 guide=2 gives the parameters whose names begin
    so a tenth of the rate, and twice it. 0 freezes them."""
    beta: float = 1.0
    """KL weight (Higgins et al. 2017); evidence is always reported at 1."""
    warmup: float = 10
    """Epochs over which the KL weight rises from 0 to beta; 0 for none."""
    particles: int | None = None
    """Draws a datum and step, K (default 1; renyi 2, iwae and dreg 8)."""
    free_bits: float = 0.0
    """Nats per latent site below which the KL is not pressed."""
    patience: int | None = None
    """Stop after so many epochs without a better validation ELBO."""
    clip_norm: float | None = None
    """Largest norm of all gradients together."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, like 0.999; it is what is evaluated and kept."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW), times the learning rate a step; small data are learnt by heart without."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Run each step as one compiled graph; auto does so in runs of at least 10,000 steps."""
    max_returns: int = 2
    """How often a run whose loss explodes or is NaN goes back to its last good epoch, at half the learning rate."""
    seed: int = 0
    """Seed of weights, batches and noise."""


@dataclass(frozen=True)
class TrainOptions(LoopOptions):
    """Training by stochastic variational inference."""

    objective: ObjectiveName = "trace-elbo"
    """Objective to optimise: Pyro's Trace_ELBO, TraceMeanField_ELBO (analytic KL, where valid) or RenyiELBO; the
    importance-weighted bound, plain or with doubly reparameterised gradients (dreg); or the ELBO with pathwise
    gradients alone (stl). Of an rbm: contrastive divergence, from the data (cd), by persistent chains (pcd), or by
    chains at several temperatures (tempering)."""
    alpha: float = 0.1
    """Weight of the classification term of a semi-supervised model, times N / N_labelled (Kingma et al. 2014)."""
    gibbs_steps: int = 1
    """Gibbs sweeps k of a step of cd, pcd and tempering."""
    gibbs_chains: int = 100
    """Chains of pcd, and of tempering at each temperature."""
    ladder: tuple[float, ...] | None = None
    """Temperatures of tempering, rising from 1 (default: 1/beta for beta = 1, 0.9 ... 0.1)."""
    exact_likelihood: bool = False
    """With them: log the exact log-likelihood after each epoch (at most 25 units in the smaller layer), and keep the
    best epoch in place of the last."""
