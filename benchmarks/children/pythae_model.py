"""Pythae's VAE with the networks of the benchmark."""

from __future__ import annotations

import itertools
from typing import Any


def build(request: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """`(model, data [batch, 1, side, side] or [batch, data_dim], versions)`, on the device asked for."""
    import pythae  # noqa: F401  first: where it is missing, the answer must not wait for torch
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from torch import nn

    torch.set_num_threads(request["threads"])
    net = request["net"]
    features, head, decoder = (_mlps if net["hidden"] else _convs)(net, nn)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.loc, self.log_var = features, head(), head()

        def forward(self, x: Any) -> Any:
            h = self.features(x)
            return ModelOutput(embedding=self.loc(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = decoder

        def forward(self, z: Any) -> Any:
            # Its loss takes probabilities, so the sigmoid is the network's.
            return ModelOutput(reconstruction=torch.sigmoid(self.layers(z)))

    shape = (net["data_dim"],) if net["hidden"] else (1, net["side"], net["side"])
    config = VAEConfig(input_dim=shape, latent_dim=net["latent_dim"], reconstruction_loss="bce")
    model = VAE(config, Encoder(), Decoder()).to(request["device"])
    data = torch.rand(net["batch"], *shape).round().to(request["device"])
    from importlib.metadata import version

    return model, data, {"pythae": version("pythae"), "torch": torch.__version__}


def _mlps(net: dict[str, Any], nn: Any) -> tuple[Any, Any, Any]:
    hidden, latent = net["hidden"], net["latent_dim"]

    def stack(widths: list[int]) -> list[Any]:
        pairs = itertools.pairwise(widths)
        return [layer for i, o in pairs for layer in (nn.Linear(i, o), nn.Tanh())]

    features = nn.Sequential(*stack([net["data_dim"], *hidden]))
    decoder = nn.Sequential(*stack([latent, *hidden[::-1]]), nn.Linear(hidden[0], net["data_dim"]))
    return features, lambda: nn.Linear(hidden[-1], latent), decoder


def _convs(net: dict[str, Any], nn: Any) -> tuple[Any, Any, Any]:
    """The Keras example's pair."""
    latent, small = net["latent_dim"], (net["side"] + 3) // 4
    features = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(64 * small * small, 16), nn.ReLU()),
    )
    decoder = nn.Sequential(
        *(nn.Linear(latent, 64 * small * small), nn.ReLU(), nn.Unflatten(1, (64, small, small))),
        *(nn.ConvTranspose2d(64, 64, 3, 2, 1, output_padding=1), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 32, 3, 2, 1, output_padding=1), nn.ReLU()),
        nn.ConvTranspose2d(32, 1, 3, 1, 1),
    )
    return features, lambda: nn.Linear(16, latent), decoder
