"""What a fit and a run can be asked: each method is the function of its name, on the test split by default."""

import html

import pytest
import torch

import pyrovae as pv
from pyrovae.inference.drawing.pictures import Pictures
from pyrovae.inference.options.pair import Pair
from pyrovae.models.vae import VAE

QUICK = {"epochs": 2, "seed": 0, "compile": False}


def vae(dim=2):
    torch.manual_seed(0)
    return VAE(
        prior=pv.priors.StandardNormal(dim),
        likelihood=pv.likelihoods.Binomial(pv.networks.MLP(dim, (16,), 64), 16),
        guide=pv.guides.DiagonalGaussian(pv.networks.MLP(64, (16,)), latent_dim=dim),
    )


@pytest.fixture(scope="module")
def data():
    return pv.data.load("digits")


@pytest.fixture(scope="module")
def fit(data):
    pair = vae()
    return pv.fit(pair.model, pair.guide, data, **QUICK)


@pytest.fixture(scope="module")
def run(fit, tmp_path_factory):
    folder = fit.save(tmp_path_factory.mktemp("runs") / "mine")
    pair = vae()
    return pv.load(folder, model=pair.model, guide=pair.guide, device="cpu")


def test_the_test_split_is_the_default(fit, run, data):
    estimators = [pv.ELBO(), pv.IS(20)]
    expected = pv.evidence(fit.model, fit.guide, data.test, estimators=estimators)
    for trained in (fit, run):
        found = trained.evidence(estimators=estimators)
        assert torch.equal(found["IS"].per_datum, expected["IS"].per_datum)
        assert found.attributes["label"] == "digits, test split"
        assert torch.equal(trained.embed(), pv.embed(fit.model, fit.guide, data.test))
        again = trained.reconstruct()
        assert torch.equal(again.x, pv.reconstruct(fit.model, fit.guide, data.test).x)
        assert len(trained.posterior(num_samples=30).x) == len(data.test)


def test_other_data_are_asked_about(fit, data):
    x = data.valid[:7]
    assert fit.embed(x).shape == (7, 2) and fit.reconstruct(x.numpy()).x.shape == (7, 64)
    found = fit.evidence(x, estimators=[pv.ELBO(5)])
    assert len(found.x) == 7 and "label" not in found.attributes
    assert fit.sample(5, seed=3).x.shape == (5, 64)
    assert not torch.equal(fit.sample(5, seed=3).x, fit.sample(5, seed=4).x)


def test_data_of_the_users_own_have_no_test_split(data):
    pair = vae()
    x, shift = data.train[:200], torch.zeros(200, 1)

    class Shifted:
        def model(self, x, shift):
            pair.model(x)

        def guide(self, x, shift):
            pair.guide(x)

    own = Shifted()
    fit = pv.fit(own.model, own.guide, (x, shift), **QUICK)
    assert fit.data[0] is x, "a reference, not a copy"
    for ask in (fit.evidence, fit.embed, fit.reconstruct, fit.posterior):
        with pytest.raises(
            ValueError, match=r"expected x, or a program trained on a data set with a test split"
        ):
            ask()
    assert fit.embed(x[:3], shift[:3]).shape == (3, 2)
    assert len(fit.sample(450).x) == 450
    with pytest.raises(ValueError, match=r"image_shape=\(height, width\)"):
        fit.plot_samples(4)
    assert fit.plot_samples(4, image_shape=(8, 8)).images


def test_figures(fit, run):
    for trained in (fit, run):
        assert {ax.get_label() for ax in trained.plot_training().axes} >= {"elbo", "kl"}
        assert trained.plot_samples(6).images and trained.plot_reconstructions().images
        assert trained.plot_latent().collections


def test_estimators_in_the_place_of_data_are_told(fit):
    with pytest.raises(TypeError, match=r"try estimators=\[ELBO"):
        fit.evidence([pv.ELBO(), pv.IS(10)])


def test_a_fit_is_saved_with_its_own_data(fit, run, data, tmp_path):
    assert run.spec.hash == data.spec.hash and run.best_epoch == fit.best_epoch
    with pytest.raises(TypeError, match=r"expected a fit of pv\.fit, got str"):
        pv.save("fit", tmp_path)
    with pytest.raises(FileExistsError):
        fit.save(run.folder)


def test_stored_evidence_is_told_from_evidence(run):
    assert run.stored_evidence is None
    pv.runs.write_evidence(run.evidence(estimators=[pv.ELBO(), pv.IS(10)]), run.folder / "evidence.nc")
    assert run.stored_evidence is not None and "IS" in run.stored_evidence
    (run.folder / "evidence.nc").unlink()


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_pictures_of_scripts_in_other_formats(fit, data, tmp_path, suffix):
    made = Pictures(Pair(fit.model, fit.guide), data, num=4, weights_hash="abc", format=suffix)
    assert made.write(tmp_path, ("samples",)) == [f"samples.{suffix}"]
    assert b"abc" in (tmp_path / f"samples.{suffix}").read_bytes()
    pv.runs.remove_results(tmp_path)
    assert not list(tmp_path.iterdir()), "those of former weights go with a new run"


def test_a_report_is_one_page_that_needs_nothing_else(fit, run, tmp_path):
    asked = {"estimators": [pv.ELBO(), pv.IS(30)]}
    for trained in (fit, run):
        page = trained.report(tmp_path / "report.html", **asked).read_text()
        found = trained.evidence(**asked)
        assert f"≥ {found['IS'].log_evidence:.4f}" in page and html.escape(found.verdict) in page
        assert page.count("data:image/png;base64,") == 4 and "left out" not in page
        value = found["IS"].per_datum[3]
        assert (
            f"<title>datum 3, class {int(trained.data.labels['test'][3])}, ln p(x) ≥ {value:.2f} nats (IS)"
            in page
        )
        # Light figures on a dark page have a plate; paper is light and shows whole tables.
        assert (
            page.count('<div class="figure"><img') == 4
            and "img { max-width: max(100%, 38rem); background: white" in page
        )
        printed = page.partition("@media print {")[2].partition("</style>")[0]
        assert "color-scheme: light }" in printed and "overflow: visible !important" in printed
        assert "<script" not in page and "http" not in page and "from pyrovae import ELBO, IS" in page
    pair = vae()
    own = pv.fit(pair.model, pair.guide, fit.data.train[:100], **QUICK)
    with pytest.raises(ValueError, match="expected x, or a program trained on a data set with a test split"):
        own.report(tmp_path / "own.html")
    page = own.report(tmp_path / "own.html", fit.data.test[:20], **asked).read_text()
    assert "fit.report(" in page and ", x, estimators=" in page
    with pytest.raises(OSError):
        fit.report(tmp_path / "none" / "a.html", **asked)
