"""The features: one line each; a new one enters by a class and its line here.

Units are independent of each other given the classes c (enumerated in the model) and g (in the guide).
"""

from .class_rows import Chain, DrawnClass, GuideClass, InnerClass, ModelClass
from .latent_rows import Auxiliary, Factor, InnerPlate, Latent, MaskedSite, SecondSite
from .laws import BetaBinomial, Discrete, GammaPoisson, Gaussian
from .mask_rows import MaskedClass, MaskedLatent, MaskedPlate, ObservedMaskDrawn, ObservedMaskEnumerated
from .plate_rows import (
    ByPlace,
    Context,
    Deterministic,
    Double,
    FixedPlate,
    Indexed,
    InnerLatent,
    NamedPlate,
    OuterPlate,
    Scale,
    ScaledPlate,
    Shared,
)
from .scope import N

ROWS = (
    GuideClass(),
    ModelClass(),
    Latent("z Gaussian", Gaussian()),
    Latent("z Gamma-Poisson", GammaPoisson()),
    Latent("z Beta-Binomial", BetaBinomial()),
    Latent("z enumerated", Discrete()),
    InnerPlate(),
    SecondSite(),
    Factor(),
    MaskedSite(),
    Auxiliary(),
    DrawnClass(),
    Chain(),
    InnerClass(),
    InnerLatent(),
    MaskedPlate(),
    MaskedLatent(),
    MaskedLatent(by_method=True),
    MaskedClass(),
    ObservedMaskEnumerated(),
    ObservedMaskDrawn(),
    Scale(),
    Indexed(),
    ScaledPlate(),
    FixedPlate(),
    OuterPlate(),
    NamedPlate(),
    Context(),
    Shared(N + 3),
    Shared(N),
    ByPlace(),
    Double(),
    Deterministic(),
)
