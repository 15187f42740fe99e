"""Figures of evidence, images and latents: what is drawn is what was given."""

import math
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_rgba
from matplotlib.figure import Figure

import pyrovae as pv
from pyrovae import plots
from pyrovae.evidence.weights.diagnostics import khat_threshold
from pyrovae.plots.style import BLUE, CLASSES, ORANGE

from .drawn import GRID, by_label, legend, line, rows, scatter

pytestmark = pytest.mark.usefixtures("pyplot_untouched")

N, K = 40, 256
inf, nan = torch.inf, torch.nan


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


def guide(x):
    # Narrower than the posterior: a gap, and weights with a tail.
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.8 * x, 0.25).to_event(1))


def make(*estimators, data=None):
    x = torch.linspace(-3, 3, N).unsqueeze(-1) if data is None else data
    return pv.evidence(model, guide, x, estimators=list(estimators))


@pytest.fixture(scope="module")
def ev():
    return make(pv.ELBO(), pv.IS(K))


def changed(ev, name="IS", **fields):
    return replace(ev, estimates={**ev.estimates, name: replace(ev[name], **fields)})


# Evidence -------------------------------------------------------------------------------------


def test_elbo_vs_is_draws_each_datum_in_the_colour_of_its_weights(ev):
    reliable = torch.arange(N) % 3 == 0
    mixed = changed(
        ev, ess=torch.where(reliable, 250.0, 3.0).double(), khat=torch.zeros(N).double(), details={}
    )
    ax = plots.plot_elbo_vs_is(mixed)
    for mask, start, colour in (
        (reliable, "weights reliable", BLUE),
        (~reliable, "weights unreliable", ORANGE),
    ):
        expected = torch.stack([ev["ELBO"].per_datum, ev["IS"].per_datum], 1)[mask]
        np.testing.assert_allclose(scatter(ax, start), expected)
        assert f"{start} ({int(mask.sum())})" in legend(ax)
        (artist,) = [c for c in ax.collections if c.get_label().startswith(start)]
        assert same_color(artist.get_facecolor()[0][:3], to_rgba(colour)[:3])
    assert f"{ev.gap:.2f} nats" in ax.get_title()
    diagonal = line(ax, "IS = ELBO")
    np.testing.assert_array_equal(diagonal[:, 0], diagonal[:, 1])
    assert ax.get_xlim() == ax.get_ylim() == (diagonal[0, 0], diagonal[1, 0])


def test_elbo_vs_is_counts_what_it_cannot_draw(ev):
    elbo = ev["ELBO"].per_datum.clone()
    elbo[:3] = -inf
    ax = plots.plot_elbo_vs_is(changed(ev, "ELBO", per_datum=elbo))
    assert "not finite, not shown (3)" in legend(ax) and f"({N - 3} data)" in ax.get_title()
    assert sum(len(c.get_offsets()) for c in ax.collections) == N - 3
    assert f"{float((ev['IS'].per_datum - elbo)[3:].mean()):.2f} nats" in ax.get_title()


def test_an_unnormalised_density_is_not_called_ln_p(ev):
    other = changed(ev, direction="none", certificate=None)
    assert "ln f(x)" in plots.plot_elbo_vs_is(other).get_ylabel()
    assert "ln f(x)" in plots.plot_lk_curve(other).get_ylabel()


def test_lk_curve_is_against_one_over_k_with_elbo_and_certificate(ev):
    ax = plots.plot_lk_curve(ev)
    e = ev["IS"]
    points = sorted((e.curve | {K: e.log_evidence}).items())
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1 / k, v] for k, v in points])
    assert np.all(np.diff(ax.lines[0].get_ydata()) > 0)
    (square,) = [a for a in ax.lines if a.get_marker() == "s"]
    np.testing.assert_allclose(square.get_xydata(), [[1, ev["ELBO"].log_evidence]])
    (dashed,) = [a for a in ax.lines if a.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed.get_ydata(), e.certificate)
    low, high = ax.get_xlim()
    assert ax.get_xscale() == "log" and low > 1 > 1 / K > high  # more samples to the right
    ax.figure.draw_without_rendering()
    ticks = {
        t.get_text() for x, t in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True) if high < x < low
    }
    assert ticks == {"1", "1/10", "1/100"}
    assert legend(ax)[1] == f"certified ≥ {e.certificate:.2f} (95%)".replace("-", "−")


def test_lk_curves_of_several_evidences_share_axes(ev):
    other = changed(ev, certificate=None, curve={1: -5.0, 2: -4.0}, num_samples=3)
    figure = Figure()
    given = figure.add_subplot()
    ax = plots.plot_lk_curve({"wide": ev, "narrow": other}, given)
    assert ax is given
    assert legend(ax)[:2] == ["wide", "narrow"] and len(legend(ax)) == 4
    np.testing.assert_allclose(line(ax, "narrow")[:2], [[1, -5.0], [0.5, -4.0]])
    assert len({a.get_color() for a in ax.lines if a.get_marker() == "s"}) == 2


def test_lk_curve_leaves_out_what_is_infinite(ev):
    ax = plots.plot_lk_curve(changed(ev, curve={1: -inf, 2: -3.0}))
    assert line(ax, ax.lines[0].get_label())[0].tolist() == [0.5, -3.0]
    assert not any(text.startswith("ELBO") for text in legend(ax))


def test_khat_counts_every_datum_once(ev):
    khat = torch.tensor([0.1, 0.2, 0.5, 0.9, 1.5, inf, -inf, -inf, nan, nan]).double()
    few = changed(ev, khat=khat, num_samples=5000)
    ax = plots.plot_khat(few)
    bars = [(p.get_x(), p.get_height(), p.get_facecolor()) for p in ax.patches]
    for x, height, colour in bars:
        if height:
            assert same_color(colour, BLUE if x < 0.7 - 1e-9 else ORANGE)
    assert sum(height for _, height, _ in bars) == 5
    assert sum(height for x, height, _ in bars if x > 0.7 - 1e-9) == 2
    assert ax.lines[0].get_xdata()[0] == khat_threshold(5000) == 0.7
    assert legend(ax) == [
        "≤ 0.70: 50% of data",
        "> 0.70: 30% of data",
        "+∞ (no usable weights): 1",
        "−∞ (all weights equal): 2",
        "undefined: 2",
    ]


def test_khat_agrees_with_numpy_on_real_weights(ev):
    ax = plots.plot_khat(ev)
    khat = ev["IS"].khat.numpy()
    n = len(ax.patches) // 2
    below, above = ax.patches[:n], ax.patches[n:]
    edges = [p.get_x() for p in below] + [below[-1].get_x() + below[-1].get_width()]
    assert edges[0] <= khat.min() and khat.max() <= edges[-1]
    assert min(abs(e - khat_threshold(K)) for e in edges) < 1e-9
    drawn = [p.get_height() + q.get_height() for p, q in zip(below, above, strict=True)]
    np.testing.assert_array_equal(drawn, np.histogram(khat, bins=edges)[0])


@pytest.mark.parametrize("value", [nan, inf, -inf, 0.3])
def test_khat_draws_degenerate_values(ev, value):
    ax = plots.plot_khat(changed(ev, khat=torch.full((N,), value).double()))
    assert sum(p.get_height() for p in ax.patches) == (N if math.isfinite(value) else 0)


def test_evidence_is_three_panels_or_two_without_an_elbo(ev):
    figure = ev.plot()
    assert isinstance(figure, Figure) and len(figure.axes) == 3
    assert [ax.get_xlabel()[:4] for ax in figure.axes] == ["1/K ", "ELBO", "Pare"]
    assert len(plots.plot_evidence(make(pv.IS(32))).axes) == 2


def test_evidence_draws_a_single_datum_with_few_samples():
    one = make(pv.ELBO(), pv.IS(2), data=torch.zeros(1, 1))
    by_label(plots.plot_evidence(one))


@pytest.mark.parametrize(
    "plot", [plots.plot_elbo_vs_is, plots.plot_lk_curve, plots.plot_khat, plots.plot_evidence]
)
def test_evidence_plots_refuse(plot):
    if plot is not plots.plot_evidence:  # which draws what there is
        with pytest.raises(ValueError, match=r"expected an evidence with 'IS' .*got \['ELBO'\]"):
            plot(make(pv.ELBO(10)))
    with pytest.raises(ValueError, match=r"expected an Evidence.*got"):
        plot(torch.zeros(3))


def test_evidence_plots_refuse_what_they_cannot_draw(ev):
    with pytest.raises(ValueError, match="'ELBO' for the x axis"):
        plots.plot_elbo_vs_is(make(pv.IS(10)))
    with pytest.raises(ValueError, match="finite estimates"):
        plots.plot_elbo_vs_is(changed(ev, "ELBO", per_datum=torch.full((N,), -inf)))
    with pytest.raises(ValueError, match="with k-hat"):
        plots.plot_khat(changed(ev, khat=None))
    with pytest.raises(ValueError, match="mapping of labels"):
        plots.plot_lk_curve({})
    with pytest.raises(ValueError, match="finite L_K of 'a'"):
        plots.plot_lk_curve({"a": changed(ev, curve={1: -inf}, per_datum=torch.full((N,), -inf))})
    with pytest.raises(ValueError, match="at most 7 evidences"):
        plots.plot_lk_curve({str(i): ev for i in range(8)})


# Images ---------------------------------------------------------------------------------------


def sheet(ax):
    (image,) = ax.images
    return np.ma.filled(image.get_array(), np.nan), image


def test_reconstructions_are_two_rows_on_the_scale_of_the_data():
    x = torch.arange(12 * 6).reshape(12, 6).float()
    ax = plots.plot_reconstructions(x, x + 100, (2, 3), ncols=4)
    pixels, image = sheet(ax)
    assert pixels.shape == (2 * 3 - 1, 4 * 4 - 1)
    for j in range(4):
        np.testing.assert_array_equal(pixels[:2, 4 * j : 4 * j + 3], x[j].reshape(2, 3))
        np.testing.assert_array_equal(pixels[3:, 4 * j : 4 * j + 3], x[j].reshape(2, 3) + 100)
    assert np.isnan(pixels[2]).all() and np.isnan(pixels[:, 3]).all()
    assert image.get_clim() == (0, 71) and image.get_interpolation() == "nearest"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["data", "reconstruction"]
    assert len(ax.get_xticks()) == 0 and ax.yaxis.get_major_ticks()[0].tick1line.get_markersize() == 0


def test_samples_are_in_reading_order_and_the_last_row_may_be_short():
    x = torch.arange(5.0).reshape(5, 1, 1, 1)
    pixels, image = sheet(plots.plot_samples(x, (1, 1), ncols=3, vmin=-1, vmax=16))
    np.testing.assert_array_equal(pixels[::2, ::2], [[0, 1, 2], [3, 4, nan]])
    assert image.get_clim() == (-1, 16)


def test_images_in_colour_keep_their_channels():
    x = torch.zeros(2, 3, 4, 5)
    x[0, 1] = 2.0
    pixels, _ = sheet(plots.plot_samples(x, (4, 5), ncols=2))
    assert pixels.shape == (4, 11, 3)
    np.testing.assert_array_equal(pixels[0, 0], [0, 1, 0])
    np.testing.assert_array_equal(pixels[0, 5], [1, 1, 1])


def test_a_constant_image_can_be_drawn():
    _, image = sheet(plots.plot_samples(torch.zeros(1, 4), (2, 2)))
    assert image.get_clim() == (0, 1)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: plots.plot_samples(torch.rand(3, 64), (8, 9)), r"8 x 9 = 72 pixels, got shape \(3, 64\)"),
        (lambda: plots.plot_samples(torch.rand(64), (8, 8)), "pixels, got shape"),
        (lambda: plots.plot_samples(torch.rand(3, 64), (64,)), r"\(height, width\), got \(64,\)"),
        (lambda: plots.plot_samples(torch.rand(0, 64), (8, 8)), "at least one image"),
        (lambda: plots.plot_samples(torch.rand(3, 64), (8, 8), 0), "ncols >= 1, got 0"),
        (lambda: plots.plot_reconstructions(torch.rand(3, 4), torch.rand(2, 4), (2, 2)), "one shape"),
        (lambda: plots.plot_reconstructions(torch.rand(3, 4), torch.rand(3, 4), (2, 2), 0), "ncols >= 1"),
        (
            lambda: plots.plot_reconstructions(torch.rand(0, 4), torch.rand(0, 4), (2, 2)),
            "at least one image",
        ),
        (lambda: plots.plot_images([torch.rand(3, 4)], (2, 2), labels=["a", "b"]), "label for each of 1"),
        (lambda: plots.plot_images([torch.full((3, 4), nan)], (2, 2)), "finite"),
        (lambda: plots.plot_images([torch.rand(3, 4), torch.rand(3, 3, 2, 2)], (2, 2)), "got both"),
    ],
)
def test_images_refuse(call, match):
    with pytest.raises(ValueError, match=match):
        call()


# Latent space ---------------------------------------------------------------------------------


def test_two_latent_dims_are_drawn_as_they_are():
    z = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(30) % 10
    ax = plots.plot_latent(z, labels)
    assert legend(ax) == [str(c) for c in range(10)]
    for c in range(10):
        np.testing.assert_allclose(scatter(ax, str(c)), z.detach()[labels == c])
        assert same_color(ax.collections[c].get_facecolor()[0][:3], to_rgba(CLASSES[c])[:3])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "$z_2$")
    assert sorted(t.get_text() for t in ax.texts) == [str(c) for c in range(10)]


def test_names_of_classes_that_coincide_are_moved_apart():
    z = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))
    ax = plots.plot_latent(z, torch.arange(400) % 10)
    at = torch.tensor([t.xy for t in ax.texts])
    distance = torch.cdist(at, at) + 10 * torch.eye(10)
    assert distance.min() > 0.05 * (z.max(0).values - z.min(0).values).max()


def test_more_latent_dims_are_drawn_by_principal_components():
    g = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(5, 5, generator=g, dtype=torch.float64))[0]
    codes = torch.randn(400, 5, generator=g, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1])
    z = codes @ axes.T + 7.0
    ax = plots.plot_latent(z)
    drawn = torch.from_numpy(np.asarray(ax.collections[0].get_offsets()))
    variances = torch.linalg.eigvalsh(torch.cov(z.T)).flip(0)
    torch.testing.assert_close(drawn.var(0), variances[:2])
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 1e-9
    share = variances / variances.sum()
    assert ax.get_xlabel() == f"PC 1 ({float(share[0]):.0%} var)"
    assert ax.get_ylabel() == f"PC 2 ({float(share[1]):.0%} var)"
    assert ax.get_legend() is None


def test_latent_draws_one_point_names_and_many_classes():
    assert plots.plot_latent(torch.zeros(1, 3)).get_xlabel() == "PC 1 (0% var)"
    assert legend(plots.plot_latent(torch.rand(3, 2), ["a", "b", "a"])) == ["a", "b"]
    ax = plots.plot_latent(torch.rand(15, 2), torch.arange(15))
    assert len({tuple(c.get_facecolor()[0]) for c in ax.collections}) == 15


@pytest.mark.parametrize(
    ("z", "labels", "match"),
    [
        (torch.rand(5, 1), None, r"D >= 2, got shape \(5, 1\)"),
        (torch.rand(5), None, "got shape"),
        (torch.rand(0, 2), None, "N >= 1"),
        (torch.tensor([[nan, 0.0]]), None, "got 1 values that are not"),
        (torch.rand(5, 2), torch.zeros(4), r"labels \[5\].* got shape \(4,\)"),
        (torch.rand(30, 2), torch.arange(30), "at most 20 classes, got 30"),
    ],
)
def test_latent_refuses(z, labels, match):
    with pytest.raises(ValueError, match=match):
        plots.plot_latent(z, labels)


# Saving ---------------------------------------------------------------------------------------

FIGURES = {
    "training": lambda ev: plots.plot_training(rows(200, lambda e: min(1, e / 50)), best_epoch=100),
    "histories": lambda ev: plots.plot_histories(GRID),
    "names": lambda ev: plots.plot_histories({" / ".join(k): h for k, h in GRID.items()}),
    "evidence": plots.plot_evidence,
    "elbo_vs_is": plots.plot_elbo_vs_is,
    "lk_curve": plots.plot_lk_curve,
    "khat": plots.plot_khat,
    "reconstructions": lambda ev: plots.plot_reconstructions(
        torch.rand(10, 784), torch.rand(10, 784), (28, 28)
    ),
    "samples": lambda ev: plots.plot_samples(torch.rand(100, 784), (28, 28)),
    "latent": lambda ev: plots.plot_latent(torch.randn(10_000, 8), torch.randint(10, (10_000,))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_saved_figure_is_a_small_picture(name, ev, tmp_path):
    plots.save(FIGURES[name](ev), tmp_path / "a.png")
    (file,) = tmp_path.iterdir()
    assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert 1000 < file.stat().st_size < 300_000


def test_pdf_is_the_same_file_each_time_and_axes_can_be_saved(ev, tmp_path):
    ax = plots.plot_khat(ev)
    assert isinstance(ax, Axes)
    plots.save(ax, tmp_path / "a.pdf")
    plots.save(ax.figure, str(tmp_path / "b.pdf"))
    first, second = ((tmp_path / name).read_bytes() for name in ("a.pdf", "b.pdf"))
    assert first.startswith(b"%PDF") and first == second


def test_a_failing_save_leaves_the_former_file_and_nothing_else(ev, tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    target.write_bytes(b"former")
    ax = plots.plot_khat(ev)

    def fail(file, **options):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(ax.figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.save(ax, target)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and target.read_bytes() == b"former"


def test_save_refuses(ev, tmp_path):
    figure = Figure()
    with pytest.raises(ValueError, match=r"ending in \.png, \.pdf, \.svg, got"):
        plots.save(figure, tmp_path / "a.jpg")
    for suffix, head in ((".svg", b"<?xml"), (".pdf", b"%PDF")):
        plots.save(figure, tmp_path / f"a{suffix}", "a hash")
        first = (tmp_path / f"a{suffix}").read_bytes()
        plots.save(figure, tmp_path / f"a{suffix}", "a hash")
        assert first.startswith(head) and (tmp_path / f"a{suffix}").read_bytes() == first
    with pytest.raises(ValueError, match="a Figure or Axes, got int"):
        plots.save(1, tmp_path / "a.png")
    with pytest.raises(FileNotFoundError):
        plots.save(figure, tmp_path / "none" / "a.png")


# Estimators and their errors -------------------------------------------------------------------


@pytest.fixture(scope="module")
def many():
    return make(pv.ELBO(), pv.IS(64), pv.Jackknife(64))


def test_extrapolation_goes_through_the_last_points(many):
    ax = plots.plot_extrapolation(many)
    points = sorted((many["IS"].curve | {64: many["IS"].log_evidence}).items())[-4:]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [1 / k for k, _ in points])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [v for _, v in points])
    slope, at_zero = np.polyfit([1 / k for k, _ in points], [v for _, v in points], 1)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [at_zero, at_zero + slope / points[0][0]])
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert many["Jackknife"].refused and not any("jackknife" in t for t in texts), (
        "what is refused is not drawn"
    )
    kept = replace(many["Jackknife"], details={})
    ax = plots.plot_extrapolation(replace(many, estimates={"IS": many["IS"], "Jackknife": kept}))
    assert any("jackknife" in t.get_text() for t in ax.get_legend().get_texts())
    single = replace(many["IS"], curve={}, num_samples=1)
    with pytest.raises(ValueError, match="two finite points"):
        plots.plot_extrapolation(replace(many, estimates={"IS": single}))


def test_worst_estimated_data(many):
    order = plots.worst_estimated(many["IS"], 3)
    assert order == [int(i) for i in many["IS"].ess.argsort()[:3]]
    side = many.x.shape[1]
    assert "worst" in plots.plot_worst(many, (1, side), num=2).get_yticklabels()[0].get_text()
    assert len(plots.plot_evidence(many, (1, side)).axes) == 5
    assert len(plots.plot_evidence(many).axes) == 4


def test_brackets_bars_and_rate_distortion():
    base = torch.randn(30, generator=torch.Generator().manual_seed(0))
    ax = plots.plot_sandwich([10, 100], [base - 2, base - 1], [base + 2, base + 1], exact=base)
    assert "2.000 ± 0.000" in ax.get_title()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["10", "100"]
    with pytest.raises(ValueError, match="for each effort"):
        plots.plot_sandwich([10], [base, base], [base])
    parts = {"a": {"approximation": (1.0, 0.1), "amortisation": (2.0, 0.1)}}
    ax = plots.plot_gap_bars(parts)
    assert [p.get_x() for p in ax.patches if p.get_width() > 0] == [0.0, 1.0]
    assert [t.get_text() for t in ax.texts] == ["1.00 ± 0.10", "approximation", "2.00 ± 0.10", "amortisation"]
    with pytest.raises(ValueError, match="same parts"):
        plots.plot_gap_bars({**parts, "b": {"approximation": (1.0, 0.1)}})
    rate = torch.linspace(0, 3, 4)
    ax = plots.plot_rate_distortion({"m": (rate, 10 - rate)}, guides={"m": (2.0, 9.0)})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 10 - rate)
    with pytest.raises(ValueError, match="one shape"):
        plots.plot_rate_distortion({"m": (rate, rate[:2])})
