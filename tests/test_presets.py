"""The named presets: the sizes of their papers, any part swapped, by Python and by the scripts."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.inference import compare, evaluate, train
from pyrovae.inference.options.building import build, build_objective
from pyrovae.inference.options.options import ModelOptions, PresetName, TrainOptions
from pyrovae.inference.options.schedules import groups, schedules
from pyrovae.models.composing import presets
from pyrovae.models.composing.architectures import Convolutional, Perceptrons
from pyrovae.networks import ConvDecoder, ConvEncoder
from pyrovae.tensor_files import read_tensors, write_tensors

pytestmark = pytest.mark.usefixtures("unrendered")

QUICK = ["--epochs", "1", "--batch-size", "629", "--latent-dim", "2", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def bits():
    """Random images of the size of MNIST, flat."""
    x = (torch.rand(64, 784, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    data = pv.data.load({"train": x[:40], "valid": x[40:52], "test": x[52:]})
    return dataclasses.replace(data, spec=dataclasses.replace(data.spec, name="binarized-mnist"))


def steps(vae, data, number=2):
    """Losses of some steps."""
    pv_svi = pv.SVI(vae.model, vae.guide, torch.optim.Adam, loss=build_objective("trace-elbo"))
    return [pv_svi.step(data.train) for _ in range(number)]


def linear(fan_in, fan_out):
    return fan_in * fan_out + fan_out


def conv(fan_in, fan_out):
    return 9 * fan_in * fan_out + fan_out


# What the papers' layers hold; the last one of keras has a bias for each pixel, where the example has one in all.
PARAMETERS = {
    "lecture": linear(784, 400) + 2 * linear(400, 2) + linear(2, 400) + linear(400, 784),
    "keras": conv(1, 32) + conv(32, 64) + linear(7 * 7 * 64, 16) + 2 * linear(16, 2)
    + linear(2, 7 * 7 * 64) + conv(64, 64) + conv(64, 32) + conv(32, 1) - 1 + 784,
    "iwae": linear(784, 200) + linear(200, 200) + 2 * linear(200, 50)
    + linear(50, 200) + linear(200, 200) + linear(200, 784),
    "vampprior": 2 * linear(784, 300) + 2 * linear(300, 300) + 2 * linear(300, 40)
    + 2 * linear(40, 300) + 2 * linear(300, 300) + linear(300, 784) + 30 * 784,
}  # fmt: skip


@pytest.mark.parametrize("name", presets.PRESETS)
def test_sizes_and_a_step(bits, name):
    torch.manual_seed(0)
    few = {"components": 30} if name == "vampprior" else {}
    vae = presets.PRESETS[name](bits, **few)
    assert sum(p.numel() for p in vae.parameters()) == PARAMETERS[name]
    assert isinstance(vae.likelihood, pv.likelihoods.Bernoulli)
    start = vae.likelihood.net.output_bias.detach().sigmoid()
    torch.testing.assert_close(start, bits.train.mean(0).clamp(1e-3, 1 - 1e-3))
    assert all(math.isfinite(loss) for loss in steps(vae, bits))


def test_names_agree():
    assert set(presets.PRESETS) == set(PresetName.__args__)


def test_layers():
    data = pv.data.load("digits", binarise="static")
    kinds = {
        "lecture": (nn.ReLU, [(64, 400)]),
        "iwae": (nn.Tanh, [(64, 200), (200, 200)]),
    }
    for name, (activation, widths) in kinds.items():
        layers = list(presets.PRESETS[name](data).q.net.layers)
        assert [(m.in_features, m.out_features) for m in layers if isinstance(m, nn.Linear)] == widths
        assert sum(isinstance(m, activation) for m in layers) == len(widths) == len(layers) // 2
    vae = presets.vampprior(data)
    assert vae.prior.pseudo_inputs.shape == (500, 64) and vae.prior.guide is vae.q and vae.q.latent_dim == 40
    assert [g.out_features for g in vae.q.net.gates] == [600, 600]
    keras = presets.keras(data)
    assert isinstance(keras.q.net, ConvEncoder) and isinstance(keras.likelihood.net, ConvDecoder)
    assert keras.q.net.out_features == 16 and keras.q.latent_dim == 2


def test_vampprior_needs_enough_data(bits):
    with pytest.raises(ValueError, match="expected 1 to 40 components"):
        presets.vampprior(bits)


def test_swaps_in_python(bits):
    vae = presets.iwae(
        bits,
        prior=lambda q: pv.priors.VampPrior(q, bits.train[:5]),
        guide=pv.guides.FullGaussian,
        likelihood=lambda net, data: pv.likelihoods.Categorical(net(2), 2, data.spec.event_shape),
        latent_dim=3,
        networks=Perceptrons((10,), nn.ELU),
    )
    assert vae.prior.guide is vae.q and isinstance(vae.q, pv.guides.FullGaussian) and vae.q.latent_dim == 3
    assert all(math.isfinite(loss) for loss in steps(vae, bits))
    assert isinstance(
        presets.lecture(bits, prior=pv.priors.GaussianMixture(2, 4)).prior, pv.priors.GaussianMixture
    )
    with pytest.raises(ValueError, match="one latent_dim"):
        presets.lecture(bits, prior=pv.priors.StandardNormal(3))


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 4, 4), (48,)])
@pytest.mark.parametrize(
    "networks", [Perceptrons((8,)), Convolutional((4,), 8), Convolutional((4,), 8, residual=True)]
)
def test_images_as_they_are(shape, networks):
    """Any network takes images; a convolutional one needs to know that they are."""
    x = torch.randint(0, 5, (30, *shape), generator=torch.Generator().manual_seed(1))
    data = pv.data.load({"train": x[:20], "valid": x[20:25], "test": x[25:]})
    if len(shape) == 1 and isinstance(networks, Convolutional):
        with pytest.raises(ValueError, match="expected images"):
            presets.lecture(data, networks=networks)
        return
    for likelihood in (None, lambda net, d: pv.likelihoods.Categorical(net(5), 5, d.spec.event_shape)):
        vae = presets.lecture(
            data,
            networks=networks,
            likelihood=likelihood,
            prior=lambda q: pv.priors.VampPrior(q, data.train[:3]),
        )
        fit = pv.fit(vae.model, vae.guide, data, epochs=1, batch_size=10)
        ev = pv.evidence(fit.model, fit.guide, data.test, estimators=[pv.IS(5)])
        assert math.isfinite(ev["IS"].log_evidence)


def test_options_given_override_the_preset(bits):
    def vae(**options):
        return build(ModelOptions(preset="iwae", **options), bits, seed=0).model.__self__

    assert vae().q.latent_dim == 50 and vae(latent_dim=4).q.latent_dim == 4
    assert vae(hidden=(30,)).q.net.out_features == 30
    assert isinstance(vae(hidden=(30,)).q.net.layers[1], nn.Tanh)  # what is not given is the preset's
    assert isinstance(vae(activation="relu").q.net.layers[1], nn.ReLU)
    assert [g.out_features for g in vae(network="gated").q.net.gates] == [400, 400]
    assert isinstance(vae(network="conv").q.net, ConvEncoder)
    other = vae(prior="vamp", guide="flow", components=20)
    assert len(other.prior.logits) == 20 and isinstance(other.q, pv.guides.FlowGuide)
    number = build(ModelOptions(preset="vampprior", components=7), bits, seed=0).model.__self__.prior.logits
    assert len(number) == 7


def test_the_default_vae_is_as_before():
    """Runs made before there were presets load with the same names, shapes and start."""
    data = pv.data.load("digits")
    old = ModelOptions(likelihood="auto", latent_dim=8, hidden=(128, 128), components=20, flow_hidden=(32,),
                       model="vae", prior="standard", guide="diagonal")  # fmt: skip
    new, old = (build(o, data, seed=3).model.__self__ for o in (ModelOptions(), old))
    torch.manual_seed(3)
    first = nn.Linear(64, 128)
    state = new.state_dict()
    assert state.keys() == old.state_dict().keys()
    assert all(torch.equal(v, old.state_dict()[k]) for k, v in state.items())
    assert torch.equal(state["q.net.layers.0.weight"], first.weight)


def test_a_run_without_the_new_options_loads(tmp_path, capsys):
    run = tmp_path / "run"
    argv = ["--out", str(run), *QUICK, "--hidden", "16", "--prior", "standard", "--guide", "diagonal"]
    assert train.main(argv) == 0
    config = json.loads((run / "config.json").read_text())
    kept = ("likelihood", "latent_dim", "hidden", "model", "prior", "guide")
    config["model"] = {k: config["model"][k] for k in kept} | {"components": 20, "flow_hidden": [32]}
    config["train"] = {
        k: config["train"][k] for k in ("epochs", "lr", "lr_end", "warmup", "seed", "objective")
    }
    (run / "config.json").write_text(json.dumps(config))
    # Weights of then did not say of which program they are.
    tensors, metadata = read_tensors(run / "weights.safetensors")
    about = {k: v for k, v in json.loads(metadata["pyrovae"]).items() if k != "program"}
    write_tensors(run / "weights.safetensors", tensors, {"pyrovae": json.dumps(about)})
    argv = [str(run), "--num-samples", "5", "--limit", "20", "--quiet", "--device", "cpu"]
    assert evaluate.main(argv) == 0
    config["model"]["nonsense"] = 1
    (run / "config.json").write_text(json.dumps(config))
    assert evaluate.main(argv) == 2
    assert "nonsense" in capsys.readouterr().err


NEW = """
--preset lecture --lr-schedule cosine
--preset keras --binarise dynamic
--preset iwae --prior vamp --guide flow --components 5
--preset vampprior --components 9 --lr-schedule iwae
--prior diagonal --guide low-rank --objective iwae --particles 3
--prior flow-spline --guide mixture --objective stl --lr-schedule constant
--prior flow-maf --guide spline-flow --objective dreg --particles 2
--prior flow-coupling --flow-transforms 2 --group prior=0.1 guide=2
--likelihood categorical --network gated --max-returns 1
--likelihood discretized-logistic --network conv --channels 4 8 --activation silu
--likelihood discretized-logistic-mixture --network residual --channels 4 --hidden 16
--likelihood gaussian-fixed --scale 4 --beta 0.5
--likelihood gaussian-per-dim --objective trace-elbo --particles 2
--likelihood heteroscedastic-gaussian
""".strip().splitlines()


@pytest.mark.parametrize("line", NEW)
def test_every_new_option_trains(line, tmp_path):
    """Two steps through the script."""
    assert train.main(["--out", str(tmp_path / "run"), *QUICK, *line.split()]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert math.isfinite(config["seconds"])


def test_compare_takes_the_new_names(tmp_path):
    out = tmp_path / "compare"
    argv = ["--out", str(out), *QUICK, "--preset", "lecture", "--priors", "flow-coupling", "--guides", "low-rank",
            "--objectives", "stl", "--num-samples", "5", "--jobs", "1"]  # fmt: skip
    assert compare.main(argv) == 0
    assert "| flow-coupling | low-rank | stl |" in (out / "table.md").read_text()


WRONG = {
    "--likelihood bernoulli": "support",
    "--likelihood discretized-logistic --binarise static": "support levels",
    "--likelihood categorical --binarise static": "support levels",
    "--likelihood continuous-bernoulli": "support unit_interval",
    "--data linear-gaussian --network conv": "expected images",
    "--likelihood gaussian-fixed --scale 0": "--scale > 0",
    "--scale -1": "--scale > 0",
    "--scale nan": "finite number for --scale",
    "--prior vamp --components 100000": "components",
    "--guide mixture --guide-components 0": "guide_components",
    "--guide low-rank --rank 3": "rank",
    "--network conv --hidden 8 8": "one --hidden width",
    "--network gated --activation relu": "--activation",
    "--channels 4": "--channels",
    "--network conv --channels 0": "channels",
    "--preset iwae --model linear-gaussian": "preset",
    "--beta -1": "beta >= 0",
    "--warmup -1": "warmup >= 0",
    "--objective renyi --beta 2": "renyi",
    "--objective dreg --particles 1": "particles >= 2",
    "--particles 0": "particles >= 1",
    "--group prior": "PREFIX=FACTOR",
    "--group prior=-1": "PREFIX=FACTOR",
    "--group guide=1 guide=2": "once",
    "--group nobody=2": "nobody",
    "--lr 0": "--lr > 0",
    "--lr nan": "finite number for --lr",
    "--max-returns -1": "--max-returns >= 0",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_options_end_with_one_line(line, tmp_path, capsys):
    code = train.main(["--out", str(tmp_path / "run"), *QUICK, *line.split()])
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and "error: expected" in err and WRONG[line] in err, err
    assert not (tmp_path / "run").exists()


def test_schedules():
    def rate(**options):
        return schedules(TrainOptions(lr=1e-3, epochs=3280, **options))["lr"]

    assert rate(lr_schedule="exponential", lr_end=1e-4)(1640) == pytest.approx(1e-3 * 10**-0.5)
    assert rate(lr_schedule="cosine", lr_end=1e-4)(1640) == pytest.approx(5.5e-4)
    assert rate(lr_schedule="cosine", lr_end=None)(3280) == pytest.approx(0)
    assert rate(lr_schedule="constant")(3000) == 1e-3 == rate(lr_end=None)(3000)
    # Burda et al. 2016: stage i lasts 3^i epochs at 10^(-i/7).
    stages = rate(lr_schedule="iwae")
    assert [stages(e) for e in (0.5, 2, 5, 3279)] == pytest.approx(
        [1e-3 * 10 ** (-i / 7) for i in (0, 1, 2, 7)]
    )
    beta = schedules(TrainOptions(beta=0.5, warmup=10))["beta"]
    assert (beta(0), beta(5), beta(20)) == (0, 0.25, 0.5)


def test_groups_scale_the_rate():
    found = groups(("prior=0.1", "guide=0"), lambda epoch: 1 / (1 + epoch))
    assert found["prior*"]["lr"](1) == pytest.approx(0.05) and found["guide*"]["lr"](0) == 0
