"""Memory of an evaluation is that of one chunk, however many data there are."""

import subprocess
import sys

import pytest

# In a process of its own: a peak is that of the whole process. With results of each chunk kept in small tensors
# this program grew by 50 MiB a datum.
PROGRAM = """
import resource
import pyro, torch
import pyro.distributions as dist
import pyrovae as pv
from pyrovae.evidence import Chunk

decoder = torch.nn.Linear(2, 400_000)

def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        logits = decoder(z).unflatten(-1, (-1, 200)).log_softmax(-1)
        pyro.sample("x", dist.Categorical(logits=logits[..., :3, :]).to_event(1), obs=x)

def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

x = torch.zeros(50, 3, dtype=torch.long)
pv.evidence(model, guide, x[:10], estimators=[pv.IS(10)], chunk=Chunk(1, 10))
before = peak()
pv.evidence(model, guide, x, estimators=[pv.IS(10)], chunk=Chunk(1, 10))
print(peak() - before)
"""


@pytest.mark.slow
def test_results_kept_do_not_scatter_the_memory():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=300
    )
    assert float(done.stdout.split()[-1]) < 100  # MiB; a chunk takes 16 to 50
