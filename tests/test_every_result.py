"""Questions to the evidence of every estimator: a figure, tables, a container, a file."""

from dataclasses import replace

import pytest
import torch

import pyrovae as pv
from pyrovae import plots
from pyrovae.models import ground_truths as gt
from pyrovae.pages.latex import latex_table
from pyrovae.runs import read_evidence, write_evidence

ESTIMATORS = [
    pv.ELBO(),
    pv.ClosedELBO(),
    pv.IS(30),
    pv.IS(30, defensive=0.1),
    pv.OwnIS(100),
    pv.Adaptive(0.5),
    pv.Jackknife(30),
    pv.MLMC(4),
    pv.AIS(3, 4, leapfrog=1),
    pv.SMC(3, 16, leapfrog=1),
    pv.Exact(),
]
NAMES = [e.name for e in ESTIMATORS]
# What is drawn of each alone, and beside the ELBO.
ALONE = {"IS": ["1/K", "Pareto"], "ELBO": ["estimate"], "ELBO (closed KL)": ["estimate"]}
ALONE |= {"Exact": ["estimate"]}


@pytest.fixture(scope="module")
def everything():
    truth = gt.linear_gaussian(8, latent_dim=2)
    ev = pv.evidence(truth.model, truth.guide, truth.x, estimators=ESTIMATORS, progress=False)
    assert list(ev) == NAMES and not ev.refused
    return ev


def of(ev, *names):
    return replace(ev, estimates={n: ev[n] for n in names}, results={n: ev.results[n] for n in names})


def panels(ev):
    return [ax.get_xlabel().split()[0] for ax in ev.plot().axes]


@pytest.mark.parametrize("name", NAMES)
def test_each_estimator_alone_and_beside_the_elbo(name, everything, tmp_path):
    ev = of(everything, name)
    assert panels(ev) == ALONE.get(name, ["Pareto"])
    if name not in ("ELBO", "ELBO (closed KL)"):
        both = ["ELBO", *ALONE.get(name, ["Pareto"])]
        if name == "IS":
            both = ["1/K", "ELBO", "Pareto"]
        assert panels(of(everything, "ELBO", name)) == [w for w in both if w != "estimate"]
    assert name in ev.table() and name in ev.table("markdown") and ev.verdict in ev._repr_html_()
    title = plots.plot_likely(ev, (1, ev.x[0].numel()), num=2).get_suptitle()
    assert title.startswith(f"{name} estimate") and ("K = " in title) == (name != "Exact")
    assert ev.compare(ev).difference == 0.0 and ev.to_arviz() is not None
    write_evidence(ev, tmp_path / "evidence.nc")
    again = read_evidence(tmp_path / "evidence.nc")
    assert torch.equal(again[name].per_datum, ev[name].per_datum) and panels(again) == panels(ev)
    latex = ev.table("latex")
    assert latex.isascii() and latex.count(r"\\") == 2 and r"\bottomrule" in latex
    (row,) = ev.to_dataframe().to_dict("records")
    assert row["estimator"] == name and row["log_evidence"] == pytest.approx(
        ev[name].log_evidence, rel=0, nan_ok=True
    )
    frame = ev.to_dataframe(per_datum=True)
    assert frame["log_evidence"].tolist() == ev[name].per_datum.tolist() and frame["datum"].tolist() == [
        *range(8)
    ]
    assert frame["reliable"].tolist() == ev[name].reliable.tolist()
    with pytest.raises(KeyError, match=r"ELBO and IS for the gap between them, got \["):
        _ = ev.gap


def test_the_histogram_counts_every_datum(everything):
    """Bars of each estimator hold all data; those that are not finite are counted in words."""
    ev = of(everything, "ELBO", "Exact")
    ax = plots.plot_per_datum(ev)
    for patch in ax.patches:
        assert patch.get_xy()[:, 1].max() >= 1
    shown = [t.get_text() for t in ax.get_legend().get_texts()]
    assert [s.split(":")[0] for s in shown] == ["ELBO", "Exact"]
    values = ev["ELBO"].per_datum.clone()
    values[:3] = -torch.inf
    part = replace(ev, estimates={"ELBO": replace(ev["ELBO"], per_datum=values)})
    (text,) = (t.get_text() for t in plots.plot_per_datum(part).get_legend().get_texts())
    assert "not finite, not shown: 3" in text
    with pytest.raises(ValueError, match="expected finite estimates"):
        lost = torch.full_like(values, -torch.inf)
        plots.plot_per_datum(replace(ev, estimates={"ELBO": replace(ev["ELBO"], per_datum=lost)}))


def test_bounds_on_both_sides_have_a_figure_and_chains_a_check():
    truth = gt.linear_gaussian(8, latent_dim=2)
    how = {"simulate": 4, "num_samples": 20, "progress": False}
    found = pv.sandwich(truth.model, truth.guide, truth.x, ais=pv.AIS(3, 2), temperatures=(2, 3), **how)
    assert [line.get_label() for line in found.plot().lines]
    with pytest.raises(TypeError, match=r"expected ais to be AIS, got list; try ais=pv.AIS\(100, 16\)"):
        pv.sandwich(truth.model, truth.guide, truth.x, ais=[pv.AIS(3, 2)], **how)


def test_signs_of_users_as_latex():
    """Greek letters, raised and lowered signs have commands; capitals like Latin ones are these."""
    table = latex_table(["λ_i", "x²"], [["H₂O Ω", "10⁻³ µm"], ["ΑΒΧ", "é k̂"]], ["σ ≥ 0"])
    for part in (
        r"$\lambda$\_i & x$^{2}$ \\",
        r"H$_{2}$O $\Omega$ & 10$^{-}$$^{3}$ $\mu$m \\",
        r"ABX & é $\hat{k}$ \\",
    ):
        assert part in table
    assert r"\caption{$\sigma$ $\geq$ 0}" in table
