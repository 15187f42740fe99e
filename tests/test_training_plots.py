"""Figures of a training and of a grid of trainings: what is drawn is what was given."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from pyrovae import plots

from .drawn import GRID, by_label, legend, line, rows

pytestmark = pytest.mark.usefixtures("pyplot_untouched")


# Training -------------------------------------------------------------------------------------


def test_training_draws_every_column_of_the_history():
    history = rows(beta=lambda e: min(1.0, e / 10))
    axes = by_label(plots.plot_training(history, best_epoch=20))
    assert set(axes) == {"elbo", "reconstruction", "kl", "beta"}
    for key in ("elbo", "reconstruction", "kl"):
        for label, prefix in (("train", ""), ("valid", "valid_")):
            expected = [[row["epoch"], row[prefix + key]] for row in history]
            np.testing.assert_allclose(line(axes[key], label), expected)
        best = line(axes[key], "kept (epoch 20)")
        np.testing.assert_allclose(best, [[20, history[19][f"valid_{key}"]]])
        assert "nats" in axes[key].get_ylabel()
    beta = axes["beta"].lines[0]
    np.testing.assert_allclose(beta.get_ydata(), [row["beta"] for row in history])
    assert beta.get_linestyle() == "--"


def test_training_of_a_diffusion_draws_its_terms():
    terms = {"term_x": 0.1, "term_prior_matching": 0.2, "term_diffusion": 0.7}
    history = [
        row
        | {"kl": 1e-7, "valid_kl": 0.0}
        | {p + k: row["elbo"] * v for k, v in terms.items() for p in ("", "valid_")}
        for row in rows()
    ]
    axes = by_label(plots.plot_training(history, best_epoch=20))
    assert set(axes) == {"elbo", *terms}
    np.testing.assert_allclose(
        line(axes["term_diffusion"], "train")[:, 1], [r["term_diffusion"] for r in history]
    )
    assert axes["term_x"].get_ylabel() == "reconstruction\n[nats]"
    with_kl = [row | {"term_x": -1.0, "term_y": -2.0} for row in rows()]
    assert set(by_label(plots.plot_training(with_kl))) == {"elbo", "reconstruction", "kl"}


def test_training_without_validation_or_schedule_draws_neither():
    axes = by_label(plots.plot_training(rows(valid=False)))
    assert "beta" not in axes and axes["elbo"].get_legend() is None
    assert axes["elbo"].get_ylabel() == "training ELBO [nats per datum]"


def test_the_first_epochs_do_not_flatten_the_rest():
    axes = by_label(plots.plot_training(rows()))
    low, high = axes["elbo"].get_ylim()
    assert low > -390 and high >= -90.4
    assert line(axes["elbo"], "train")[0, 1] == -390  # still there, below the axes


def test_training_draws_one_epoch_unknown_terms_and_into_a_given_figure():
    figure = Figure()
    history = [{"epoch": 1, "elbo": -1.0, "reconstruction": math.nan, "kl": math.nan}]
    assert plots.plot_training(history, figure=figure) is figure
    axes = by_label(figure)
    assert axes["elbo"].lines[0].get_marker() == "o"
    assert [t.get_text() for t in axes["kl"].texts] == ["not available"]


@pytest.mark.parametrize(
    ("history", "options", "match"),
    [
        ([], {}, "at least one epoch, got none"),
        ([{"elbo": 1.0}], {}, "expected 'epoch' in every row"),
        ([{"epoch": 1}], {}, "expected a finite 'elbo'"),
        ({"epoch": 1}, {}, "expected history to be rows"),
        (rows(3), {"best_epoch": 4}, r"epochs 1 \.\.\. 3, got 4"),
    ],
)
def test_training_refuses(history, options, match):
    with pytest.raises(ValueError, match=match):
        plots.plot_training(history, **options)


def test_histories_of_a_grid_have_one_look_a_level():
    ax = plots.plot_histories({**GRID, ("StandardNormal", "diagonal", "ELBO"): rows(5)})
    assert len(ax.lines) == 18
    looks = {tuple(a.get_label().split(" / ")): a for a in ax.lines}
    for (prior, kind, objective), artist in looks.items():
        assert artist.get_color() == looks[prior, "flow", "IWAE"].get_color()
        assert artist.get_linestyle() == looks["VampPrior", kind, "IWAE"].get_linestyle()
        assert artist.get_marker() == looks["VampPrior", "flow", objective].get_marker()
    assert len({(a.get_color(), a.get_linestyle(), a.get_marker()) for a in ax.lines}) == 18
    np.testing.assert_allclose(
        looks["VampPrior", "full", "IWAE"].get_ydata(),
        [row["valid_elbo"] for row in GRID["VampPrior", "full", "IWAE"]],
    )
    texts = ax.get_legend().get_texts()
    bold = [t.get_text() for t in texts if t.get_weight() == "bold"]
    assert bold == ["prior", "guide", "objective"] and len(texts) == 3 + 3 + 3 + 2


def test_histories_by_name_can_be_told_apart_and_leave_the_axes_free():
    ax = plots.plot_histories({" / ".join(name): h for name, h in GRID.items()})
    assert legend(ax) == [" / ".join(name) for name in GRID]
    assert len({(a.get_color(), a.get_linestyle()) for a in ax.lines}) == 18
    figure = ax.figure
    figure.draw_without_rendering()
    outside, inside = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert outside.x0 >= inside.x1 and inside.width > outside.width
    assert outside.y0 >= 0 and outside.y1 <= figure.bbox.height and outside.x1 <= figure.bbox.width


def test_histories_without_validation_are_of_the_training_elbo():
    ax = plots.plot_histories({"a": rows(valid=False)})
    assert ax.get_ylabel().startswith("training ELBO")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [row["elbo"] for row in rows()])


@pytest.mark.parametrize(
    ("histories", "match"),
    [
        ({}, "mapping of names"),
        (rows(), "mapping of names"),
        ({"a": []}, "history 'a' with at least one epoch"),
        ({"a": rows(), "b": rows(valid=False)}, "some with and some without"),
        ({"a": [{"epoch": 1}]}, "finite 'elbo'"),
        ({"a": rows(2), ("b", "c"): rows(2)}, "all tuples of 2 or 3"),
        ({f"{i}": rows(2) for i in range(29)}, "at most 28 histories, got 29"),
        ({(f"{i}", "a"): rows(2) for i in range(8)}, "at most 7 levels of prior"),
    ],
)
def test_histories_refuse(histories, match):
    with pytest.raises(ValueError, match=match):
        plots.plot_histories(histories)


def test_a_single_fit_has_no_legend_and_whole_epochs():
    history = [{"epoch": i + 1.0, "elbo": -9.0 + i, "valid_elbo": -8.0 + i} for i in range(3)]
    ax = plots.plot_histories({("standard", "diagonal", "elbo"): history})
    assert ax.get_legend() is None
    two = plots.plot_histories({("standard", "full"): history, ("vamp", "full"): history})
    assert [t.get_text() for t in two.get_legend().get_texts()] == ["prior", "standard", "vamp"]
    for drawn in (ax, plots.plot_training([r | {"kl": 1.0, "reconstruction": 2.0} for r in history]).axes[0]):
        assert all(float(v).is_integer() for v in drawn.get_xticks())
