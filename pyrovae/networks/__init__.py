"""Networks for parts: each takes any number of leading dims, and says its `out_features`."""

from .bias import logit_of_mean as logit_of_mean
from .bias import set_output_bias as set_output_bias
from .conv import ConvDecoder as ConvDecoder
from .conv import ConvEncoder as ConvEncoder
from .fourier import FourierFeatures as FourierFeatures
from .gated import GatedMLP as GatedMLP
from .heads import out_features_of as out_features_of
from .heads import positive_scale as positive_scale
from .heads import soft_limit as soft_limit
from .inputs import Rescale as Rescale
from .mlp import MLP as MLP
from .pairs import keras_conv_pair as keras_conv_pair
from .pairs import residual_conv_pair as residual_conv_pair
from .residual import ResidualBlock as ResidualBlock
from .residual_mlp import ResidualMLP as ResidualMLP
from .table_inputs import TableInputs as TableInputs
from .unet import UNet as UNet
