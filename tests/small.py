"""Options of small runs, evaluations and comparisons, which several files of tests start."""

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
