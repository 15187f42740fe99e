"""Points of a page: places, texts, colours."""

import re
from xml.etree import ElementTree

import pytest
import torch

import pyrovae as pv
from pyrovae.models import ground_truths as gt
from pyrovae.pages.scatter import svg_scatter
from pyrovae.plots.latents.pointed import latent_svg


def circles(svg):
    """(x, y, text, fill) of each point."""
    found = []
    for group in ElementTree.fromstring(svg).iter("g"):
        for dot in group.findall("circle"):
            found.append(
                (float(dot.get("cx")), float(dot.get("cy")), dot.find("title").text, group.get("fill"))
            )
    return found


def test_places_texts_and_colours():
    points = [(0.0, 0.0), (2.0, 0.0), (0.0, 1.0)]
    groups = {"<a>": ([0, 2], "#0072B2"), "b": ([1], "#000000")}
    svg = svg_scatter(points, ["one & two", "b", "c"], groups, ("x", "y"))
    (a, c, b) = circles(svg)
    assert [d[2] for d in (a, b, c)] == ["one & two", "b", "c"]
    # Distances are alike in both directions, and y grows upwards.
    assert b[0] - a[0] == pytest.approx(2 * (a[1] - c[1]), abs=0.2) and b[1] == a[1] and c[0] == a[0]
    assert b[3] == "currentColor" and a[3] == "#0072B2" and "&lt;a&gt;" in svg
    with pytest.raises(ValueError, match="as many texts as points"):
        svg_scatter(points, ["a"], groups, ("x", "y"))


def test_each_datum_says_what_it_is():
    truth = gt.linear_gaussian(12, latent_dim=2)
    labels = torch.arange(12) % 3
    svg = latent_svg(
        truth.model, truth.guide, truth.x, labels=labels, texts=[f"value {n}" for n in range(12)]
    )
    said = {int(re.match(r"datum (\d+)", text)[1]): (x, y, text) for x, y, text, _ in circles(svg)}
    assert said[7][2] == "datum 7, class 1, value 7" and len(said) == 12
    means = pv.embed(truth.model, truth.guide, truth.x)
    places = torch.tensor([said[n][:2] for n in range(12)], dtype=means.dtype)
    for d, sign in ((0, 1), (1, -1)):
        shift = torch.stack([sign * places[:, d], means[:, d]])
        assert torch.corrcoef(shift)[0, 1] > 0.9999
