"""A pair of strided convolutional networks for images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor, nn

from .inputs import join


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
        block: What follows each convolution, made from its channels, for example `ResidualBlock`.

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
        block: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.image_shape = _image_shape(image_shape)
        c, h, w = self.image_shape
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip([c, *channels], channels, strict=False):
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), activation()]
            layers += [block(fan_out)] if block else []
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
        # The shape as given: a batch of one [1, 28, 28] must not be taken for one image of one channel.
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
    entry of `channels`, the last of them to the image. The output is linear, with one bias for each pixel
    (`output_bias`).

    Args:
        latent_dim: Width of z, context not counted.
        channels: Input channels of the transposed convolutions.
        image_shape: `(H, W)` or `(C, H, W)`.
        activation: Class (or constructor) of the activation.
        context_features: Total width of the context tensors, concatenated to z.
        block: What precedes each convolution, made from its channels, for example `ResidualBlock`.
        last_stride: Stride of the last convolution, 2 or 1.

    Raises:
        ValueError: on construction, for no channels or another stride; on a call, for inputs of another width.
    """

    def __init__(
        self,
        latent_dim: int,
        channels: Sequence[int] = (64, 32),
        image_shape: Sequence[int] = (28, 28),
        activation: Callable[[], nn.Module] = nn.ReLU,
        context_features: int = 0,
        block: Callable[[int], nn.Module] | None = None,
        last_stride: int = 2,
    ) -> None:
        super().__init__()
        if not channels or last_stride not in (1, 2):
            raise ValueError(
                "expected at least one entry in channels and a last_stride of 1 or 2, "
                f"got {tuple(channels)} and {last_stride}"
            )
        self.image_shape = _image_shape(image_shape)
        c, h, w = self.image_shape
        sizes = [(h, w)]
        strides = [2] * (len(channels) - 1) + [last_stride]
        for s in reversed(strides):
            sizes.insert(0, ((sizes[0][0] + s - 1) // s, (sizes[0][1] + s - 1) // s))
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate(zip(channels, [*channels[1:], c], strict=True)):
            (h, w), (small_h, small_w) = sizes[i + 1], sizes[i]
            s, last = strides[i], i == len(channels) - 1
            pad = (h - s * (small_h - 1) - 1, w - s * (small_w - 1) - 1)
            layers += [block(fan_in)] if block else []
            layers.append(nn.ConvTranspose2d(fan_in, fan_out, 3, s, 1, output_padding=pad, bias=not last))
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
