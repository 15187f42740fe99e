"""Places of tensors: the library on a device beside the CPU, with real numbers, on a machine without a GPU."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pyrovae.programs.placed import placed

ROOT = Path(__file__).parents[1]
PARTS = ["pairs", "default", "generated", "families", "resuming", "laws", "other_default", "steps", "scripts"]
MAKERS = {
    *("tensor", "scalar_tensor", "zeros", "ones", "empty", "full", "arange", "linspace", "logspace", "eye"),
    *("rand", "randn", "randint", "randperm", "as_tensor"),
}
# A module is made where torch's default says, as torch's own; a number that a user gives as well.
BY_DEFAULT = ("guides", "likelihoods", "networks", "priors")
ELSEWHERE = {("checking/kinds.py", "_given"), ("programs/idioms/conditioning.py", "_as_tensor")}


def unplaced(path):
    """Lines of a file where a tensor is made of no other, or noise is seeded, and no device is named."""
    found = []

    def look(node, function):
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, ast.FunctionDef) else function
            if isinstance(child, ast.Call) and ast.unparse(child.func).removeprefix("torch.") in MAKERS:
                told = any(k.arg in ("device", "out", None) for k in child.keywords)
                if ast.unparse(child.func).startswith("torch.") and not told:
                    found.append((function, child.lineno))
            seeds = isinstance(child, ast.Call) and ast.unparse(child.func) == "seeded"
            if seeds and not any(k.arg == "device" for k in child.keywords):
                found.append((function, child.lineno))
            look(child, inner)

    look(ast.parse(path.read_text()), "")
    return found


def test_a_tensor_that_the_library_makes_has_a_device_by_name():
    """Under torch.set_default_device others would lie where the user's lie, beside results on the CPU."""
    package = ROOT / "pyrovae"
    wrong = [
        f"{name}:{line}"
        for path in sorted(package.rglob("*.py"))
        if (name := path.relative_to(package).as_posix()).partition("/")[0]
        not in (*BY_DEFAULT, "models", "inference")
        for function, line in unplaced(path)
        if (name, function) not in ELSEWHERE
    ]
    assert wrong == []


def test_the_rule_finds_what_it_is_about(tmp_path):
    file = tmp_path / "some.py"
    lines = [
        "import torch",
        "def f(x):",
        "    with seeded(0, 'f'), seeded(0, 'g', device=x.device):",
        "        return torch.zeros(3), torch.ones(2, device=x.device), x.new_ones(2), torch.as_tensor(x)",
    ]
    file.write_text("\n".join(lines))
    assert sorted(unplaced(file)) == [("f", 3), ("f", 4), ("f", 4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of the compiled device."""
    return tmp_path_factory.mktemp("second_device")


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_the_device_gives_the_numbers_of_the_cpu(part, folder):
    command = [sys.executable, "-m", "tests.second_device", "--only", part, "--few", "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "torch.ones(3, device='second') + torch.ones(3)",
        "torch.where(torch.ones(3, device='second') > 0, torch.ones(3), torch.zeros(3))",
        "torch.ones(3, device='second').numpy()",
        "torch.cat([torch.ones(1, device='second'), torch.ones(1)])",
        "torch.randn(3, device='second', generator=torch.Generator())",
        "nn.Linear(2, 2)(torch.ones(1, 2, device='second'))",
        "nn.Conv2d(1, 1, 2)(torch.ones(1, 1, 3, 3, device='second'))",
        "torch.zeros(3, device='second').index_add_(0, torch.tensor([0]), torch.ones(1))",
    ],
)
def test_the_device_is_as_strict_as_a_gpu(body, folder):
    code = (
        f"import torch; from torch import nn; from pathlib import Path; from tests.second_device import load\n"
        f"load(Path({str(folder)!r}))\n"
        f"try:\n    {body}\nexcept (RuntimeError, TypeError) as error:\n    print('refused', error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("refused"), done.stdout + done.stderr


def pair():
    """Networks in a closure, a tensor that it holds, and one that a line makes."""
    net, shift = nn.Linear(2, 3), torch.full((2,), 0.5)

    def model(x):
        return net(torch.zeros(2) + shift)

    def guide(x):
        return shift

    return model, guide


def test_a_program_of_a_cpu_runs_on_the_device_of_its_data():
    model, guide = placed(*pair(), torch.device("meta"), tensors=True)
    assert model(None).device.type == guide(None).device.type == "meta"
    with pytest.raises(RuntimeError, match="device"):
        placed(*pair(), torch.device("meta"))[0](None)  # the tensor that it holds may be another's


def test_a_program_on_a_cpu_is_the_one_that_was_given():
    given = pair()
    assert placed(*given, torch.device("cpu")) == given
