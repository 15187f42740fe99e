"""Whether a guide's sites are those of its model, and all of them in the plate over data."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch

from ..declaration import Declaration
from ..latents.supports import base_of
from ..sites import is_factor, sample_sites
from .measure import is_computed

# Reparameterisers that leave an observed site the density of another number: suffix of the site, class, number.
_WITHOUT_JACOBIAN = (
    ("decentered", "LocScaleReparam", "(x - loc) / scale^(1 - centered)"),
    ("base", "TransformReparam", "the base of its law, as ln x of a LogNormal"),
)


def check_structure(guide_trace: Any, prior_trace: Any, plate: str, declared: Declaration) -> None:
    """Compares a guide trace with a trace of the model run alone (from its prior).

    Raises:
        ValueError: for the first breach of the contract that is found.
    """
    model_sites = dict(sample_sites(prior_trace))
    guide_sites = {n: s for n, s in sample_sites(guide_trace) if not s["is_observed"]}
    fixed = [n for n, s in sample_sites(guide_trace) if s["is_observed"] and not is_factor(s)]
    moved = [n for n in fixed if is_computed(guide_trace.nodes[n])]
    if moved:
        raise ValueError(
            f"expected a guide whose latents are those of the model, got {moved} computed from others, as "
            "poutine.reparam leaves them; try the same reparam around the model, or around neither"
        )
    if fixed:
        raise ValueError(f"expected a guide without observed sites, got {fixed}; obs= belongs in the model")
    latents = {n: s for n, s in model_sites.items() if not s["is_observed"]}
    observed = [n for n, s in model_sites.items() if s["is_observed"]]
    if not observed:
        raise ValueError("expected a model with an observed site (obs=x), got none")
    if declared.observed is not None and declared.observed not in observed:
        raise ValueError(f"expected the declared observed site {declared.observed!r}, got {observed}")

    for suffix, reparam, what in _WITHOUT_JACOBIAN:
        moved = [n for n in observed if is_computed(model_sites[n]) and f"{n}_{suffix}" in observed]
        if moved:
            raise ValueError(
                f"expected observed sites in the units of the data, got {moved} under {reparam}: its density is that "
                f"of {what}, without the Jacobian; try to reparameterise latents alone"
            )
    _check_names(latents, observed, guide_sites, plate)
    for source, sites in (("model", model_sites), ("guide", guide_sites)):
        outside = _outside(sites, plate)
        factors = [n for n in outside if is_factor(sites[n])]
        if factors:  # there is no value to condition them on
            raise ValueError(
                f"expected every site of the {source} inside the plate {plate!r}, got pyro.factor at {factors}, a term "
                f"of all data, which is no part of any ln p(x_n); try poutine.block({source}, hide={factors})"
            )
        if outside:
            _refuse_second_plate(source, {n: sites[n] for n in outside}, sites, plate)
            raise ValueError(_all_share(source, plate, outside))
    for n, site in latents.items():
        if n in guide_sites and site["fn"].event_shape != guide_sites[n]["fn"].event_shape:
            raise ValueError(
                f"expected the guide to draw {n!r} with the model's event shape "
                f"{tuple(site['fn'].event_shape)}, got {tuple(guide_sites[n]['fn'].event_shape)}; try the same "
                ".to_event(...) in both"
            )
        if n in guide_sites:
            _check_categories(n, site["fn"], guide_sites[n]["fn"])


def _check_categories(name: str, prior: Any, guide: Any) -> None:
    """Refuses a guide that draws classes which the prior does not have: it has no density of theirs, not even zero."""
    if all(isinstance(base_of(fn), torch.distributions.Categorical) for fn in (prior, guide)):
        own, wanted = (base_of(fn).param_shape[-1] for fn in (guide, prior))
        if own > wanted:
            raise ValueError(
                f"expected a guide of {name!r} with the model's {wanted} classes, got one of {own}; try probs or "
                f"logits of shape [..., {wanted}] in the guide"
            )


def _check_names(
    latents: dict[str, Any], observed: list[str], guide_sites: dict[str, Any], plate: str
) -> None:
    """Refuses latents that the guide lacks, sites that the model lacks, and latents at one point."""
    auxiliary = [n for n, s in guide_sites.items() if s["infer"].get("is_auxiliary")]
    extra = [n for n in guide_sites if n not in latents and n not in auxiliary]
    missing = [
        n for n, s in latents.items() if n not in guide_sites and s["infer"].get("enumerate") != "parallel"
    ]
    shared = _outside({n: latents[n] for n in missing}, plate)
    if shared:  # to draw them in the guide would not do
        raise ValueError(_all_share("model", plate, shared))
    intervened = [n for n in missing if latents[n].get("_intervener_id") is not None]
    if intervened:
        raise ValueError(
            f"expected every latent of the model in the guide, got a guide without {intervened}, which pyro.do still "
            "draws, with nothing that depends on the draw; try pyro.condition, which counts the density of the value, "
            f"too, or poutine.block(poutine.do(...), hide={intervened}) for p(x | do({', '.join(intervened)}))"
        )
    if missing:
        other = f", which draws {extra} that the model does not" if extra else ""
        hint = "the model's names in the guide" if extra else "pyro.sample in the guide"
        raise ValueError(
            f"expected every latent of the model in the guide, got a guide without {missing}{other}; without its "
            f"density the weights (and the ELBO) are wrong; try {hint}, or enumerate it "
            '(infer={"enumerate": "parallel"}) if it is discrete'
        )
    known = [n for n in extra if n in observed]
    if known:
        raise ValueError(
            f"expected a guide that draws the model's latents alone, got {known}, which the model observes (obs=, "
            f"pyro.condition); try poutine.block(guide, hide={known})"
        )
    if extra:
        raise ValueError(
            f"expected guide sites that the model has too, got {extra}; a guide variable without a place "
            "in the model needs one there (its reverse density), or is_auxiliary=True if a Delta maps it"
        )
    points = [
        n for n in latents if n in guide_sites and isinstance(base_of(guide_sites[n]["fn"]), dist.Delta)
    ]
    if points and not auxiliary:
        raise ValueError(
            f"expected a guide with a density, got a point estimate (Delta) at {points}; try a law with a width there, "
            "such as AutoNormal(model) in place of AutoDelta(model)"
        )
    loose = [n for n in auxiliary if n not in latents]
    if loose and not points:
        raise ValueError(
            f"expected auxiliary guide sites to be mapped to latents by Delta sites, got {loose} with none; "
            "the model has no density for them, so p(x, z)/q(a, z) integrates to infinity"
        )


def _refuse_second_plate(source: str, outside: dict[str, Any], sites: dict[str, Any], plate: str) -> None:
    """Refuses data in a plate of another name, where the data plate has its dim and size."""
    data = {(f.dim, f.size) for s in sites.values() for f in s["cond_indep_stack"] if f.name == plate}
    for name, site in outside.items():
        for f in site["cond_indep_stack"]:
            if (f.dim, f.size) in data:
                raise ValueError(
                    f"expected every site of the {source} inside the plate {plate!r}, got {name!r} in {f.name!r}, "
                    f"another plate of as many data ({f.size} here): nothing says that their rows are the same data; "
                    f"try one plate for both (data = pyro.plate({plate!r}, len(x)), and `with data:` twice)"
                )


def _outside(sites: dict[str, Any], plate: str) -> list[str]:
    return [n for n, s in sites.items() if plate not in {f.name for f in s["cond_indep_stack"]}]


def _all_share(source: str, plate: str, names: list[str]) -> str:
    return f"expected every site of the {source} inside the plate {plate!r}, got {names} outside: {_ADVICE[source]}"


_ADVICE = {
    "model": "with global variables the evidence does not factorise over data; condition on them first, by "
    'pyro.condition(model, {"name": value}) before the plate, or given={"name": value} of pv.fit, pv.evidence and '
    "pv.log_weights",
    "guide": "one draw for all data has no density for each; try a guide that draws in the plate (amortised, or "
    "AutoNormal, AutoDiagonalNormal, AutoMultivariateNormal of a model whose latents are all in the plate)",
}
