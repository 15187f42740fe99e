"""Options of small runs, evaluations and comparisons, and a user's program, which several files of tests start."""

FLAGS = ["--device", "cpu", "--quiet"]
QUICK = ["--epochs", "2", "--hidden", "8", "--latent-dim", "2", "--compile", "off", *FLAGS]
EVALUATE = ["--num-samples", "30", "--limit", "40", "--compile", "off", *FLAGS]
GRID = [
    "--priors",
    "standard",
    "mixture",
    "--guides",
    "diagonal",
    "--objectives",
    "trace-elbo",
    "--num-samples",
    "20",
]
FREE = [
    "--limit",
    "2",
    "--simulate",
    "1",
    "--num-samples",
    "9",
    "--chains",
    "2",
    "--steps",
    "3",
    "--work-steps",
    "3",
]
FREE += ["--work-chains", "4", "--leapfrog", "1", "--temperatures", "1.0", "2.0"]

# Options of models of each family.
SMALL = {"latent_dim": 2, "hidden": (8,)}
FAMILIES = {
    "perceptrons": SMALL,
    "gated, VampPrior": {**SMALL, "network": "gated", "prior": "vamp", "components": 3},
    "convolutions": {**SMALL, "network": "conv", "channels": (4,)},
    "residual": {**SMALL, "network": "residual", "channels": (4,)},
    "mixtures": {**SMALL, "prior": "mixture", "guide": "mixture"},
    "MAF": {**SMALL, "prior": "flow-maf", "guide": "flow", "flow_hidden": (4,)},
    "full covariance": {**SMALL, "guide": "full"},
    "discretized logistic": {**SMALL, "likelihood": "discretized-logistic"},
    "categorical": {**SMALL, "likelihood": "categorical"},
    "ladder": {"model": "hierarchical", "widths": (4, 2), "level_width": 8, "guide": "top-down"},
    "diffusion": {"model": "diffusion", "hidden": (8,)},
    "diffusion of levels": {"model": "diffusion", "hidden": (8,), "denoiser": "levels"},
}

# A file that names no device; of grey levels up to 16.
PROGRAM = """
import pyro, torch
import pyro.distributions as dist

SHIFT = torch.full((2,), 0.1)

def build(data):
    D = data.train.shape[1]
    net, enc = torch.nn.Linear(2, D), torch.nn.Linear(D, 4)
    scale = torch.full((2,), 1.5)
    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), scale).to_event(1))
            pyro.sample("x", dist.Binomial(16, logits=net(z + SHIFT)).to_event(1), obs=x)
    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, raw = enc(x / 16).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))
    return model, guide
"""
