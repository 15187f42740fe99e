"""Log-weights by a loop: each datum alone, each draw alone, by Pyro's own traces."""

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask

from pyrovae.programs import module_mode


def log_joint(fn, values, rows, skip=()):
    """Sum of the log-densities of a program at values, without those of `skip`; observed sites count."""
    with torch.no_grad(), pyro.validation_enabled(False), module_mode(fn, training=False):
        trace = poutine.trace(poutine.condition(fn, data=values)).get_trace(*rows)
    total = 0.0
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample" or name in skip:
            continue
        log_prob = site["fn"].log_prob(site["value"])
        total += float(scale_and_mask(log_prob, 1.0, site["mask"]).double().sum())
    return total


def log_weight(model, guide, rows, values, skip=()):
    """ln p(x, z) - ln q(z) of one datum at one draw; `skip` names sites that are no part of either."""
    return log_joint(model, values, rows, skip) - log_joint(guide, values, rows, skip)
