"""Networks for parts: each takes any number of leading dims, and says its `out_features`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "Rescale",
    "logit_of_mean",
    "out_features_of",
    "positive_scale",
    "set_output_bias",
]

SCALE_FLOOR = 1e-4
_SOFTPLUS_ONE = 0.5413248546129181  # softplus(this) = 1


def positive_scale(raw: Tensor) -> Tensor:
    r"""Maps an unconstrained tensor to scales: :math:`\sigma = \mathrm{softplus}(r + c) + 10^{-4}`.

    `c` makes a zero input a scale of 1 (plus the floor), so a new guide starts at the width of the prior.
    """
    # WHY softplus and a floor, not exp(logvar / 2): exp overflows to inf (and inf - inf to NaN) for inputs
    # far from the training data; clamping it stops the gradient. Softplus grows linearly and always learns.
    return softplus(raw + _SOFTPLUS_ONE) + SCALE_FLOOR


def out_features_of(net: nn.Module, features: int | None = None) -> int:
    """Width of a network's output: its attribute `out_features`, or `features` where it has none.

    Raises:
        ValueError: the network does not say and `features` is not given, or the two differ.
    """
    own = getattr(net, "out_features", None)
    if isinstance(own, int):
        if features is not None and features != own:
            raise ValueError(f"expected features={own}, the network's out_features, got {features}")
        return own
    if features is None:
        raise ValueError(
            f"expected a network with an attribute out_features, got {type(net).__name__} without; "
            "try features=<the size of the network's last output dim>"
        )
    return features


def join(inputs: Sequence[Tensor], width: int, like: Tensor) -> Tensor:
    """Concatenates along the last dim after broadcasting the leading dims; checks the total width."""
    # WHY only non-float inputs are cast: uint8 images are data, but float64 against float32 is a mistake.
    tensors = [x if x.is_floating_point() else x.to(like.dtype) for x in inputs]
    if any(x.dim() == 0 for x in tensors):
        raise ValueError("expected inputs with at least one dim, got a scalar")
    if sum(x.shape[-1] for x in tensors) != width:
        got = " + ".join(str(x.shape[-1]) for x in tensors) or "no input"
        raise ValueError(f"expected inputs of total width {width} on the last dim, got {got}")
    if len(tensors) == 1:
        return tensors[0]
    lead = torch.broadcast_shapes(*(x.shape[:-1] for x in tensors))
    return torch.cat([x.expand(*lead, x.shape[-1]) for x in tensors], dim=-1)


class Rescale(nn.Module):
    """An affine input module, `x * factor + shift`: `Rescale(1 / 16)` maps grey levels 0..16 to 0..1."""

    def __init__(self, factor: float, shift: float = 0.0) -> None:
        super().__init__()
        self.factor, self.shift = float(factor), float(shift)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the rescaled tensor, of the same shape."""
        return x * self.factor + self.shift

    def extra_repr(self) -> str:
        """Shows the factor and the shift."""
        return f"factor={self.factor:g}, shift={self.shift:g}"


class MLP(nn.Module):
    """A multi-layer perceptron: `[..., in_features] -> [..., out_features]`.

    Several inputs (data or latents, then context) are broadcast over their leading dims and concatenated;
    `in_features` is their total width.

    Args:
        in_features: Total width of the inputs.
        hidden: Widths of the hidden layers.
        out_features: Width of a last linear layer. None leaves it out: the network ends in the activation
            of its last hidden layer, which is what a guide's own head wants.
        activation: Class (or constructor) of the activation.
        preprocess: A module applied to the first input, for example `Rescale(1 / 16)`.

    Raises:
        ValueError: on a call, for inputs of another width; on construction, for no layer at all.

    Example:
        >>> MLP(64, hidden=(32,))(torch.zeros(5, 3, 64)).shape
        torch.Size([5, 3, 32])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (200, 200),
        out_features: int | None = None,
        activation: Callable[[], nn.Module] = nn.Tanh,
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not hidden and out_features is None:
            raise ValueError("expected at least one layer, got hidden=() and out_features=None")
        widths = [in_features, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        if out_features is not None:
            layers.append(nn.Linear(widths[-1], out_features))
        self.in_features = in_features
        self.out_features = widths[-1] if out_features is None else out_features
        self.preprocess = preprocess
        self.layers = nn.Sequential(*layers)

    @property
    def output_bias(self) -> Tensor:
        """Bias of the last layer, `[out_features]`; ValueError if the network ends in an activation."""
        last = self.layers[-1]
        if not isinstance(last, nn.Linear):
            raise ValueError("expected a network with out_features given, got one that ends in an activation")
        return last.bias

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Returns `[..., out_features]` for inputs `[..., width_i]` whose leading dims broadcast."""
        weight = next(self.layers.parameters())
        if self.preprocess is not None:
            x = self.preprocess(x)
        return self.layers(join((x, *context), self.in_features, weight))


def _image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    if len(image_shape) not in (2, 3):
        raise ValueError(f"expected image_shape (H, W) or (C, H, W), got {tuple(image_shape)}")
    c, h, w = (1, *image_shape) if len(image_shape) == 2 else image_shape
    return int(c), int(h), int(w)


class ConvEncoder(nn.Module):
    """A strided convolutional encoder: `[..., *image_shape]` or flat `[..., C*H*W]` to `[..., out_features]`.

    Each entry of `channels` is one 3x3 convolution of stride 2; any image size works. The output has gone
    through the activation. Context joins the flattened feature map before the last linear layer.

    Args:
        image_shape: `(H, W)` or `(C, H, W)`.
        channels: Output channels of the convolutions.
        out_features: Width of the output.
        activation: Class (or constructor) of the activation.
        context_features: Total width of the context tensors.
        preprocess: A module applied to the image, for example `Rescale(1 / 16)`.

    Raises:
        ValueError: on a call, for an input or context of another shape.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        out_features: int = 128,
        activation: Callable[[], nn.Module] = nn.ReLU,
        context_features: int = 0,
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.image_shape = _image_shape(image_shape)
        c, h, w = self.image_shape
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip([c, *channels], channels, strict=False):
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), activation()]
            h, w = (h + 1) // 2, (w + 1) // 2
        self._flat = (channels[-1] if channels else c) * h * w
        self.event_shape = tuple(image_shape)
        self.in_features = prod(self.image_shape)
        self.out_features = out_features
        self.preprocess = preprocess
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(self._flat + context_features, out_features)
        self.activation = activation()

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Returns features `[..., out_features]`."""
        # WHY the shape as given: a batch of one [1, 28, 28] must not be taken for one image of one channel.
        event = self.event_shape
        if tuple(x.shape[-len(event) :]) == event:
            lead = x.shape[: -len(event)]
        elif x.dim() and x.shape[-1] == self.in_features:
            lead = x.shape[:-1]
        else:
            raise ValueError(
                f"expected images of shape [..., {', '.join(map(str, event))}] or [..., {self.in_features}], "
                f"got {tuple(x.shape)}"
            )
        weight = self.head.weight
        x = x if x.is_floating_point() else x.to(weight.dtype)
        if self.preprocess is not None:
            x = self.preprocess(x)
        features = self.convolutions(x.reshape(-1, *self.image_shape)).reshape(*lead, self._flat)
        return self.activation(self.head(join((features, *context), self.head.in_features, weight)))


class ConvDecoder(nn.Module):
    """A transposed-convolutional decoder: latents `[..., latent_dim]` to flat images `[..., C*H*W]`.

    The mirror of `ConvEncoder`: a linear layer, then one 3x3 transposed convolution of stride 2 for each
    entry of `channels`. The output is linear, with one bias for each pixel (`output_bias`).

    Args:
        latent_dim: Width of z, context not counted.
        channels: Input channels of the transposed convolutions.
        image_shape: `(H, W)` or `(C, H, W)`.
        activation: Class (or constructor) of the activation.
        context_features: Total width of the context tensors, concatenated to z.

    Raises:
        ValueError: on construction, for no channels; on a call, for inputs of another width.
    """

    def __init__(
        self,
        latent_dim: int,
        channels: Sequence[int] = (64, 32),
        image_shape: Sequence[int] = (28, 28),
        activation: Callable[[], nn.Module] = nn.ReLU,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        if not channels:
            raise ValueError("expected at least one entry in channels, got ()")
        self.image_shape = _image_shape(image_shape)
        c, h, w = self.image_shape
        sizes = [(h, w)]
        for _ in channels:
            sizes.insert(0, ((sizes[0][0] + 1) // 2, (sizes[0][1] + 1) // 2))
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate(zip(channels, [*channels[1:], c], strict=True)):
            (h, w), (small_h, small_w) = sizes[i + 1], sizes[i]
            pad = (h - 2 * small_h + 1, w - 2 * small_w + 1)
            last = i == len(channels) - 1
            layers.append(nn.ConvTranspose2d(fan_in, fan_out, 3, 2, 1, output_padding=pad, bias=not last))
            if not last:
                layers.append(activation())
        self.in_features = latent_dim + context_features
        self.out_features = prod(self.image_shape)
        self._first_shape = (channels[0], *sizes[0])
        self.stem = nn.Sequential(nn.Linear(self.in_features, prod(self._first_shape)), activation())
        self.convolutions = nn.Sequential(*layers)
        self.output_bias = nn.Parameter(torch.zeros(self.out_features))

    def forward(self, z: Tensor, *context: Tensor) -> Tensor:
        """Returns flat images `[..., C*H*W]`, unconstrained."""
        x = self.stem(join((z, *context), self.in_features, self.output_bias))
        image = self.convolutions(x.reshape(-1, *self._first_shape))
        return image.reshape(*x.shape[:-1], self.out_features) + self.output_bias


def set_output_bias(net: nn.Module, bias: Tensor) -> None:
    """Sets a network's `output_bias`, for example to `logit_of_mean(data.train)`, in place.

    With it a Bernoulli decoder starts at the data's mean image (Burda et al., 2015,
    https://arxiv.org/abs/1509.00519).

    Raises:
        ValueError: the network has no `output_bias`, or one of another size.
    """
    own = getattr(net, "output_bias", None)
    if not isinstance(own, Tensor):
        raise ValueError(f"expected a network with an output_bias, got {type(net).__name__}")
    if own.numel() != bias.numel():
        raise ValueError(f"expected a bias of {own.numel()} values, got {bias.numel()}")
    with torch.no_grad():
        own.copy_(bias.reshape(own.shape))


def logit_of_mean(x: Tensor, high: float = 1.0, eps: float = 1e-3) -> Tensor:
    """Logit of the mean of data in 0..high, `[N, *event] -> [*event]`; means stay eps away from 0 and 1."""
    mean = x.to(torch.get_default_dtype()).mean(0) / high
    return torch.logit(mean.clamp(eps, 1 - eps))
