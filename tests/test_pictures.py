"""Pictures of latent spaces: what is computed for them, what is drawn, what is refused."""

import ast
import math
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm

import pyrovae as pv
from pyrovae import plots
from pyrovae.inference import sample, train
from pyrovae.inference.drawing.arrays import unlike_pairs
from pyrovae.inference.drawing.pictures import PICTURES
from pyrovae.programs import aggregate_posterior, decode, latent_space

from .handwritten import CASES, CONTEXT, F64, B, D, L, W, X, posterior

G = torch.Generator().manual_seed(3)


def images(num=6, side=4, latent_dim=2, constrained=False, discrete=False, scale=0.5, kls=None):
    """A hand-written pair on flat images, linear in z; z_j's KL can be given by its mean's size."""
    pixels = side * side
    weight = torch.randn(latent_dim, pixels, generator=G)
    x = torch.rand(num, pixels, generator=G)
    loc = (
        torch.randn(num, latent_dim, generator=G) if kls is None else torch.tensor(kls).sqrt().expand(num, -1)
    )

    def latent(loc, sd):
        if discrete:
            return dist.Bernoulli(logits=loc).to_event(1)
        return dist.LogNormal(loc, sd).to_event(1) if constrained else dist.Normal(loc, sd).to_event(1)

    def model(x, index):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", latent(torch.zeros(latent_dim), torch.ones(latent_dim)))
            pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1), obs=x)

    def guide(x, index):
        with pyro.plate("data", len(x)):
            pyro.sample("z", latent(loc[index], torch.full((latent_dim,), scale)))

    return model, guide, x, torch.arange(num), weight, loc


# Grids and paths --------------------------------------------------------------------------------


def test_the_manifolds_grid_is_of_gaussian_quantiles():
    u = plots.gaussian_quantiles(7)
    np.testing.assert_allclose(u, norm.ppf((np.arange(7) + 0.5) / 7), atol=1e-12)
    with pytest.raises(ValueError, match="steps >= 1, got 0"):
        plots.gaussian_quantiles(0)


def test_the_manifold_shows_each_point_where_its_axes_say():
    model, guide, x, index, weight, _ = images()
    ax = plots.plot_manifold(model, guide, x, index, image_shape=(4, 4), steps=5)
    sheet = np.asarray(ax.images[0].get_array())
    u = torch.as_tensor(norm.ppf((np.arange(5) + 0.5) / 5), dtype=torch.float32)
    for row in range(5):
        for column in range(5):
            z = torch.stack([u[column], u[4 - row]])  # z_2 grows upwards
            shown = sheet[row * 5 : row * 5 + 4, column * 5 : column * 5 + 4]
            np.testing.assert_allclose(shown, (z @ weight).reshape(4, 4), atol=1e-5)
    assert r"\Phi^{-1}" in ax.get_xlabel() and "prior" not in ax.get_xlabel()
    assert ax.get_xticklabels()[0].get_text() == f"−{-u[0]:.1f}"


def test_a_manifold_needs_two_dims():
    model, guide, x, index, *_ = images(latent_dim=3)
    with pytest.raises(ValueError, match="expected a 2-D latent for a manifold, got 3; try plot_traversals"):
        plots.plot_manifold(model, guide, x, index, image_shape=(4, 4))


def test_another_prior_moves_the_grid_and_the_axes_say_so():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.5])).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

    ax = plots.plot_manifold(model, guide, torch.zeros(3, 2), image_shape=(1, 2), steps=3)
    assert "prior" in ax.get_xlabel()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1.1", "3.0", "4.9"]  # 3 ± 2 · 0.967


@pytest.mark.parametrize("path", [plots.lerp, plots.slerp])
def test_a_path_has_its_ends_and_middle(path):
    a, b = torch.randn(2, 4, 5, generator=G, dtype=F64)
    points = path(a, b, 7)
    assert points.shape == (7, 4, 5)
    torch.testing.assert_close(points[0], a)
    torch.testing.assert_close(points[-1], b)
    for bad, match in (((a, b[:2], 5), "one shape"), ((a, b, 1), "steps >= 2")):
        with pytest.raises(ValueError, match=match):
            path(*bad)


def test_spherical_interpolation_keeps_the_norm_and_the_speed():
    a, b = (3 * torch.nn.functional.normalize(torch.randn(6, generator=G, dtype=F64), dim=0) for _ in "ab")
    points = plots.slerp(a, b, 9)
    torch.testing.assert_close(points.norm(dim=-1), torch.full((9,), 3.0, dtype=F64))
    steps = (points[1:] - points[:-1]).norm(dim=-1)
    torch.testing.assert_close(steps, steps[0].expand(8))
    assert plots.lerp(a, b, 9).norm(dim=-1).min() < 2.9


@pytest.mark.parametrize("b", [[2.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 1e-9]])
def test_vectors_on_one_line_are_joined_by_it(b):
    a, b = torch.tensor([1.0, 0.0], dtype=F64), torch.tensor(b, dtype=F64)
    torch.testing.assert_close(plots.slerp(a, b, 5), plots.lerp(a, b, 5))


# The latent space -------------------------------------------------------------------------------


def test_codes_are_posterior_means_and_kl_is_the_closed_form():
    model, guide, x, index, _, loc = images(num=9, latent_dim=3, scale=0.7)
    codes = latent_space(model, guide, x, index).encode()
    torch.testing.assert_close(codes.mean, loc)
    expected = 0.5 * (loc.square() + 0.7**2 - 1 - 2 * math.log(0.7)).mean(0)
    torch.testing.assert_close(codes.kl, expected.double(), rtol=1e-5, atol=1e-6)


def test_a_guide_that_does_not_factorise_has_codes_and_no_kl():
    case = CASES["plain"]()
    codes = latent_space(case.model, case.wrong, X).encode()
    torch.testing.assert_close(codes.mean, posterior(X, wrong=True).loc)
    assert codes.kl is None


def test_a_scalar_latent_is_taken_when_named_and_its_mean_averaged_over_what_it_depends_on():
    case = CASES["two latents"]()
    with pytest.raises(
        ValueError, match=r"vector-valued latent, got 'z1' \(scalar\), 'z2' \(scalar\); try site="
    ):
        latent_space(case.model, case.exact, X)
    space = latent_space(case.model, case.exact, X, site="z2")
    num = 400
    mean = space.encode(num_samples=num).mean
    q = posterior(X)
    # The mean of z2 given z1 varies with z1 alone: a Monte-Carlo error below Var(z2).
    error = 4 * (q.variance[:, 1] / num).sqrt()
    assert mean.shape == (len(X), 1) and ((mean[:, 0] - q.loc[:, 1]).abs() < error).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"constrained": True}, "'z'.*support"),
        ({"discrete": True}, "'z'.*discrete"),
    ],
)
def test_constrained_and_discrete_latents_are_refused(options, match):
    model, guide, x, index, *_ = images(**options)
    for site in (None, "z"):
        with pytest.raises(ValueError, match=match):
            latent_space(model, guide, x, index, site=site)
    with pytest.raises(ValueError, match=r"expected a latent of \['z'\], got 'y'"):
        latent_space(model, guide, x, index, site="y")


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_handwritten_pair_can_be_decoded_and_drawn_from(name):
    case = CASES[name]()
    scalar = {"two latents": "z1"} | {
        f"enumerated in an inner plate of the {p}": "z" for p in ("model", "guide")
    }
    site = scalar.get(name)
    options = {"plate": "images"} if name == "plate=" else {}
    observed = "x0" if name == "sequential plate" else None
    space = latent_space(
        case.model, case.exact or case.wrong, *case.args, site=site, observed=observed, **options
    )
    codes = space.encode(num_samples=2)
    assert codes.mean.shape == (len(case.args[0]), space.dim)
    z = torch.randn(7, space.dim, generator=G, dtype=F64)
    made = space.decode(z)
    assert len(made.mean) == 7 and torch.isfinite(made.mean).all()
    if name in ("plain", "images", "x[ind], size fixed", "fixed plate", "AutoNormal", "masked dims"):
        again = space.decode(z.flip(0)).mean.flip(0)
        torch.testing.assert_close(made.mean, again)
    if name in ("plain", "images", "x[ind], size fixed", "fixed plate"):
        torch.testing.assert_close(made.mean, z @ W.T + B)
    drawn = aggregate_posterior(
        case.model, case.exact or case.wrong, *case.args, num_draws=11, observed=observed, **options
    )
    assert len(drawn.mean) == len(drawn.x) == len(drawn.latents[space.site]) == 11


def test_the_context_is_that_of_the_datum_asked_for():
    case = CASES["context"]()
    space = latent_space(case.model, case.exact, *case.args)
    z = torch.zeros(2, L, dtype=F64)
    torch.testing.assert_close(space.decode(z, datum=3).mean, (B - CONTEXT[3]).expand(2, D))
    with pytest.raises(ValueError, match=r"expected z \[M, 2\]"):
        space.decode(z[:, :1])


def test_decode_draws_the_other_latents_or_puts_them_at_their_mean():
    def model(x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z = pyro.sample("z", dist.Normal(3 * top, 0.1).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    top, like = torch.tensor([[1.0, 2.0]] * 4000), torch.zeros(4000, 2)
    drawn = decode(model, {"top": top}, like)
    torch.testing.assert_close(drawn.latents["top"], top)
    noise = drawn.latents["z"] - 3 * top
    assert abs(float(noise.std()) - 0.1) < 4 * 0.1 / math.sqrt(2 * noise.numel())
    still = decode(model, {"top": top}, like, means=True)
    torch.testing.assert_close(still.mean, 3 * top)
    assert float(still.x.std()) > 0.5  # x itself is drawn
    with pytest.raises(ValueError, match=r"expected latents of the model .* got \['y'\]"):
        decode(model, {"y": top}, like)


def test_the_aggregate_posterior_of_a_linear_gaussian_has_its_mean_and_covariance():
    case = CASES["plain"]()
    num = 20_000
    z = aggregate_posterior(case.model, case.exact, X, num_draws=num).latents["z"]
    q = posterior(X)
    mean = q.loc.mean(0)
    cov = q.covariance_matrix.mean(0) + torch.cov(q.loc.T, correction=0)
    assert ((z.mean(0) - mean).abs() < 4 * (cov.diagonal() / num).sqrt()).all()
    assert ((torch.cov(z.T) - cov).abs() < 4 * cov.diagonal().max() * math.sqrt(2 / num)).all()
    with pytest.raises(ValueError, match="num_draws >= 1, got 0"):
        aggregate_posterior(case.model, case.exact, X, num_draws=0)


def test_a_subsampling_program_draws_from_the_data_chosen():
    """x[ind] in a plate that draws its own subsample: each datum's turn comes once."""
    case = CASES["x[ind], size fixed"]()
    num = 100 * len(X)
    z = aggregate_posterior(case.model, case.exact, X, num_draws=num).latents["z"]
    q = posterior(X)
    # With each datum taken equally often, only the noise of q is left in the mean.
    error = 4 * (q.variance.mean(0) / num).sqrt()
    assert ((z.mean(0) - q.loc.mean(0)).abs() < error).all()


def test_each_datum_is_drawn_from_once_before_any_is_again():
    model, guide, x, index, _, loc = images(num=6, scale=1e-4)
    z = aggregate_posterior(model, guide, x, index, num_draws=9).latents["z"]
    nearest = torch.cdist(z, loc).argmin(1)
    assert sorted(nearest[:6].tolist()) == list(range(6)) and len(set(nearest[6:].tolist())) == 3


# Traversals and scatter -------------------------------------------------------------------------


def test_traversals_are_ordered_by_kl_and_say_it_in_nats():
    kls = [0.5, 4.0, 0.1, 2.0]
    model, guide, x, index, weight, loc = images(latent_dim=4, scale=1.0, kls=[2 * k for k in kls])
    ax = plots.plot_traversals(model, guide, x, index, image_shape=(4, 4), num_dims=3, steps=5)
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels == ["$z_{2}$   4.00 nats", "$z_{4}$   2.00 nats", "$z_{1}$   0.50 nats"]
    assert "KL" in ax.get_title() and "6 data" in ax.get_title() and "3 of 4 dims" in ax.get_title()
    sheet = np.asarray(ax.images[0].get_array())
    z = loc[0].clone()
    z[1] = -3.0
    np.testing.assert_allclose(sheet[:4, :4], (z @ weight).reshape(4, 4), atol=1e-4)


def test_without_a_kl_per_dim_traversals_say_they_go_by_variance():
    case = CASES["plain"]()
    ax = plots.plot_traversals(case.model, case.exact, X, image_shape=(1, 3), steps=3)
    variances = posterior(X).loc.var(0, unbiased=False)
    order = variances.argsort(descending=True)
    shown = [t.get_text() for t in ax.get_yticklabels()]
    assert shown == [f"$z_{{{int(j) + 1}}}$   {float(variances[j]):.2f}" for j in order]
    assert "Var" in ax.get_title() and "no KL per dim" in ax.get_title()


def test_the_latent_scatter_takes_the_dims_of_largest_kl():
    model, guide, x, index, _, loc = images(num=8, latent_dim=3)
    loc *= torch.tensor([1.0, 9.0, 4.0])
    ax = plots.plot_latent_space(model, guide, x, index, labels=[0, 1] * 4)
    assert "z_{2}" in ax.get_xlabel() and "KL" in ax.get_xlabel() and "nats" in ax.get_xlabel()
    assert "z_{3}" in ax.get_ylabel()
    drawn = np.concatenate([c.get_offsets() for c in ax.collections])
    np.testing.assert_allclose(drawn, torch.cat([loc[::2], loc[1::2]])[:, [1, 2]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"finite kl \[3\]"):
        plots.plot_latent(loc, kl=torch.ones(2))


# Neighbours and likely data ---------------------------------------------------------------------


def test_neighbours_equal_brute_force(monkeypatch):
    data, queries = torch.rand(101, 3, 4, generator=G), torch.rand(9, 12, generator=G)
    monkeypatch.setattr("pyrovae.plots.latents.neighbours.CHUNK", 10)
    distances, indices = plots.nearest_neighbours(queries, data, 5)
    every = (queries[:, None].double() - data.flatten(1).double()).square().sum(-1).sqrt()
    expected = every.sort(1)
    assert torch.equal(indices, expected.indices[:, :5])
    torch.testing.assert_close(distances.double(), expected.values[:, :5], rtol=1e-5, atol=1e-6)


def test_a_copy_is_found_at_distance_zero_and_ties_go_to_the_first():
    data = torch.rand(20, 30, generator=G) + 1000
    data[15] = data[4]
    distances, indices = plots.nearest_neighbours(data[4:5], data, 2)
    assert indices.tolist() == [[4, 15]] and distances.tolist() == [[0.0, 0.0]]
    for k, other, match in ((21, data, "k in 1 ... 20"), (1, data[:, :3], "one event")):
        with pytest.raises(ValueError, match=match):
            plots.nearest_neighbours(data[:1], other, k)


def test_neighbours_are_drawn_below_their_sample():
    data = torch.arange(10.0).reshape(10, 1, 1).expand(10, 3, 3)
    ax = plots.plot_neighbours(torch.tensor([2.2, 7.4]).reshape(2, 1).expand(2, 9), data, (3, 3), k=2)
    sheet = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose([sheet[0, 0], sheet[0, 4]], [2.2, 7.4], rtol=1e-6)
    assert [sheet[5, 0], sheet[9, 0], sheet[5, 4], sheet[9, 4]] == [
        2,
        3,
        7,
        8,
    ]  # a third of 3: one pixel more
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.60", "1.20"]
    assert "10 training data" in ax.get_title()


def test_likely_shows_both_ends_of_the_evidence():
    case = CASES["plain"]()
    ev = pv.evidence(case.model, case.exact, X, estimators=[pv.IS(10)])
    figure = plots.plot_likely(ev, (1, 3), num=2, name="test data")
    values = case.log_evidence.sort().values
    shown = [t.get_text() for ax in figure.axes for t in ax.get_xticklabels()]
    assert shown == [f"{v:.1f}".replace("-", "−") for v in (values[0], values[1], values[-1], values[-2])]
    title = figure.get_suptitle()
    assert "≤ ln p(x)" in title and "K = 10" in title and "5 test data" in title
    ax = plots.plot_reconstructions(X, X, (1, 3), 3, ev=ev)
    above = [t.get_text() for t in ax.get_xticklabels()]
    assert above == [f"{v:.1f}".replace("-", "−") for v in case.log_evidence[:3]]


def test_images_in_colour_may_have_channels_last_and_blanks_are_white():
    row = torch.rand(2, 4, 5, 3, generator=G)
    row[1] = torch.nan
    sheet = np.asarray(plots.plot_images([row], (4, 5), vmin=0, vmax=1).images[0].get_array())
    np.testing.assert_allclose(sheet[:, :5], row[0])
    assert (sheet[:, 5:] == 1).all()


def test_interpolations_stand_between_their_data():
    model, guide, x, index, weight, loc = images()
    ax = plots.plot_interpolations(model, guide, x, index, image_shape=(4, 4), pairs=[(1, 4)], steps=3)
    sheet = np.asarray(ax.images[0].get_array())
    lefts = [0, 6, 11, 16, 22]
    linear = [x[1], loc[1] @ weight, (loc[1] + loc[4]) @ weight / 2, loc[4] @ weight, x[4]]
    for left, image in zip(lefts, linear, strict=True):
        np.testing.assert_allclose(sheet[:4, left : left + 4], image.reshape(4, 4), atol=1e-5)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["linear", "spherical"]
    with pytest.raises(ValueError, match="indices below 6"):
        plots.plot_interpolations(model, guide, x, index, image_shape=(4, 4), pairs=[(0, 6)])


def test_pairs_are_of_different_classes():
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    assert unlike_pairs(6, labels) == [(0, 3), (1, 4), (2, 5)]
    assert unlike_pairs(3, None) == [(0, 1)]
    with pytest.raises(ValueError, match="at least 2 data"):
        unlike_pairs(1, None)


# The script -------------------------------------------------------------------------------------

QUICK = ["--epochs", "1", "--hidden", "16", "--device", "cpu", "--quiet"]
FEW = ["--num", "9", "--num-samples", "5", "--limit", "30", "--device", "cpu"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for dim in (2, 3):
        assert train.main(["--out", str(folder / str(dim)), *QUICK, "--latent-dim", str(dim)]) == 0
    assert train.main(["--out", str(folder / "lg"), *QUICK, "--data", "linear-gaussian"]) == 0
    return folder


def test_sample_makes_every_picture(runs, tmp_path, capsys):
    assert sample.main([str(runs / "2"), *FEW, "--out", str(tmp_path)]) == 0
    assert {p.stem for p in tmp_path.glob("*.png")} == set(PICTURES)
    assert all(1000 < p.stat().st_size < 300_000 for p in tmp_path.glob("*.png"))
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as arrays:
        assert arrays["mean"].shape == (9, 64)
    assert "left out" not in capsys.readouterr().out


def test_sample_says_what_it_left_out_and_why(runs, tmp_path, capsys):
    assert sample.main([str(runs / "3"), *FEW, "--out", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "left out: manifold: expected a 2-D latent for a manifold, got 3; try plot_traversals" in out
    assert "manifold.png" not in {p.name for p in tmp_path.iterdir()}
    assert sample.main([str(runs / "lg"), *FEW, "--out", str(tmp_path / "lg")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    drawn = ("samples", "reconstructions", "latent")
    assert {p.name for p in (tmp_path / "lg").iterdir()} == {"samples.npz", *(f"{p}.png" for p in drawn)}
    assert out.count("expected images, got data of shape") == 1  # told once, for all that it holds of
    assert f"left out: {', '.join(p for p in PICTURES if p not in drawn)}: expected images" in out


def test_sample_fails_for_a_picture_asked_for_by_name(runs, tmp_path, capsys):
    argv = [*FEW, "--out", str(tmp_path), "--only", "manifold", "latent"]
    assert sample.main([str(runs / "3"), *argv]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "--only manifold: expected a 2-D latent for a manifold, got 3; try plot_traversals" in err
    assert {p.name for p in tmp_path.iterdir()} == {"samples.npz", "latent.png"}  # the other is written


@pytest.mark.parametrize("option", ["--num", "--num-samples", "--limit"])
def test_sample_refuses_none(option, runs, tmp_path, capsys):
    assert sample.main([str(runs / "2"), option, "0", "--out", str(tmp_path)]) == 2
    assert f"expected {option} >= 1, got 0" in capsys.readouterr().err


def test_every_script_that_draws_takes_a_format():
    """No picture's suffix is written into the code of a script."""
    folder = Path(__file__).parents[1] / "inference"
    trees = {path: ast.parse(path.read_text()) for path in folder.rglob("*.py")}
    fixed = [
        f"{path.name}: {node.value}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.endswith((".png", ".pdf", ".svg"))
    ]
    assert len(trees) > 40 and not fixed
