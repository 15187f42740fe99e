"""Workers side by side share the cores: each takes its part instead of all of them."""

import atexit
import os
import shutil
import signal
import tempfile

import torch

workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


# A suite that was started in the background ignores the signal that tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Records of code that tests train with are no business of the user's.
os.environ["PYROVAE_STATE"] = tempfile.mkdtemp(prefix="pyrovae-state-")
atexit.register(shutil.rmtree, os.environ["PYROVAE_STATE"], ignore_errors=True)
