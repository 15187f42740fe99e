"""Networks for parts: each takes any number of leading dims, and says its `out_features`."""

from .bias import logit_of_mean as logit_of_mean
from .bias import set_output_bias as set_output_bias
from .conv import ConvDecoder as ConvDecoder
from .conv import ConvEncoder as ConvEncoder
from .heads import out_features_of as out_features_of
from .heads import positive_scale as positive_scale
from .inputs import Rescale as Rescale
from .mlp import MLP as MLP
