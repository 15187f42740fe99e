"""A number in any holder of Python's, read in any way: a compiled step is Pyro's right after a change, or eager."""

import array
import collections
import contextvars
import copy
import dataclasses
import enum
import functools
import json
import operator
import types
import weakref

import numpy as np
import pyro
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from .against_pyro import L, Program, assert_pyros

pytestmark = pytest.mark.usefixtures("interpreted")

BEFORE, AFTER = 1.0, 3.0
AT, STEPS = 6, 8  # compared with an eager step at 1, 2, 4 and 8 alone: the watch has to see it


class Term(enum.Enum):
    KL = 1


class Key:
    """Equal to itself alone."""


@dataclasses.dataclass
class Settings:
    beta: float = BEFORE
    other: float = 1.0


class Slots:
    __slots__ = ("beta",)


class OfDict(dict):
    pass


class OfList(list):
    pass


class OfText(str):
    pass


class OfInt(int):
    pass


class Hidden(dict):
    def __getitem__(self, key):
        return super().__getitem__(key)


class Measured:
    beta = BEFORE

    def __len__(self):
        return 1 if self.beta == BEFORE else 3

    def __float__(self):
        return float(self.beta)


class Behind:
    """Attributes under other names."""

    def __init__(self):
        self.__dict__["_values"] = {"beta": BEFORE}

    def __getattr__(self, name):
        return self.__dict__["_values"][name]

    def __setattr__(self, name, value):
        self._values[name] = value


class Private(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(L, L))
        self._beta = BEFORE

    def weight(self):
        return self._beta


class PrivateLinear(nn.Linear):
    def __init__(self):
        super().__init__(L, L)
        self._beta = BEFORE

    weight_now = Private.weight


class PrivatePyro(PyroModule[nn.Linear]):
    def __init__(self):
        super().__init__(L, L)
        self._beta = BEFORE

    weight_now = Private.weight


class PrivateList(nn.ModuleList):
    _beta = BEFORE
    weight_now = Private.weight


def optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BEFORE)


def scheduled():
    return torch.optim.lr_scheduler.LambdaLR(optimizer(), lambda epoch: BEFORE if epoch == 0 else AFTER)


def function():
    def held():
        return None

    held.beta = BEFORE
    return held


def slots():
    made = Slots()
    made.beta = BEFORE
    return made


def put(name):
    return lambda holder: setattr(holder, name, AFTER)


def attribute(cls):
    def make():
        made = cls()
        made.beta = BEFORE
        return made

    return make


def by_match(holder):
    match holder:
        case Settings(beta=value):
            return value


WRITTEN = "{0.beta}"
get_beta = operator.attrgetter("beta")
get_item = operator.itemgetter("beta")
pop = operator.methodcaller("get", "beta")
VARIABLE = contextvars.ContextVar("VARIABLE", default=BEFORE)
GLOBAL = BEFORE


def set_global(value):
    globals()["GLOBAL"] = value
    return Settings()


# Objects with an attribute `beta`, and ways to read it.
OBJECTS = {
    "dataclass": Settings,
    "namespace": lambda: types.SimpleNamespace(beta=BEFORE),
    "slots": slots,
    "of dict": attribute(OfDict),
    "of list": attribute(OfList),
    "of str": attribute(OfText),
    "of int": attribute(OfInt),
    "behind": Behind,
    "a function": function,
    "a tensor": attribute(lambda: torch.zeros(1)),
    "a dataclass in a large tuple": Settings,
}
READ_OBJECT = {
    "by name": lambda o: o.beta,
    "getattr": lambda o: getattr(o, "be" + "ta"),
    "attrgetter": lambda o: get_beta(o),
    "format": lambda o: float(WRITTEN.format(o)),
    "eval": lambda o: eval("o.beta", {"o": o}),
    "copy": lambda o: operator.attrgetter("beta")(copy.copy(o)),
    "match": by_match,
    "astuple": lambda o: dataclasses.astuple(o)[0],
    "asdict": lambda o: next(iter(dataclasses.asdict(o).values())),
    "replace": lambda o: next(iter(vars(dataclasses.replace(o)).values())),
    "vars": lambda o: next(iter(vars(o).values())),
    "partial": functools.partial(lambda o: o.beta),
}
ONLY_DATACLASS = {"match", "astuple", "asdict", "replace", "vars"}
UNCOPIED = {"a function", "behind"}

# Containers whose key `beta`, or whose last element, is the number.
KEYED = {
    "dict": dict,
    "ordered": collections.OrderedDict,
    "default": lambda d: collections.defaultdict(float, d),
    "user": collections.UserDict,
    "chain": lambda d: collections.ChainMap({}, d),
    "own look": Hidden,
    "counter": collections.Counter,
    "large": lambda d: {**dict.fromkeys(range(300), 0.0), **d},
}
KEYS = {
    "text": "beta",
    "enum": Term.KL,
    "tuple": ("z", "kl"),
    "type": nn.Linear,
    "object": Key(),
    "none": None,
}
ROWS = {
    "list": list,
    "deque": collections.deque,
    "user": collections.UserList,
    "array": lambda row: array.array("d", row),
    "bytes": lambda row: bytearray(map(int, row)),
    "numpy": np.array,
    "objects": lambda row: np.array([*row, None], dtype=object)[:-1],
    "large": lambda row: [0.0] * 300 + row,
    "large deque": lambda row: collections.deque([0.0] * 300 + row),
}
READ_ROW = {
    "last": lambda row: float(row[-1]),
    "sum": lambda row: float(sum(row)),
    "largest": lambda row: float(max(row)),
}


def keyed(make, key):
    def holder():
        return make({key: BEFORE})

    def change(made):
        (made.maps[1] if isinstance(made, collections.ChainMap) else made)[key] = AFTER

    return holder, lambda made: float(made[key]), change


def row(make, read):
    return lambda: make([0.0, BEFORE]), read, lambda made: made.__setitem__(-1, int(AFTER))


def nested(make, read):
    """In a tuple of more than 256 elements."""
    return (
        lambda: (*range(300), make()),
        lambda made: read(made[-1]),
        lambda made: setattr(made[-1], "beta", AFTER),
    )


def of_torch(net):
    return net, lambda made: made.weight_now(), put("_beta")


def by_reference():
    kept = Settings()
    return (weakref.ref(kept), kept)


def method_of_a_dict():
    kept = {"beta": BEFORE}
    return types.SimpleNamespace(read=kept.get, change=lambda: kept.update(beta=AFTER))


CASES = {}
for about, make in OBJECTS.items():
    for way, read in READ_OBJECT.items():
        if (way in ONLY_DATACLASS and "dataclass" not in about) or (way == "copy" and about in UNCOPIED):
            continue
        large = about.endswith("tuple")
        CASES[f"{about}, {way}"] = nested(make, read) if large else (make, read, put("beta"))
for about, make in KEYED.items():
    for word, key in KEYS.items():
        CASES[f"{about} dict, key {word}"] = keyed(make, key)
for about, make in ROWS.items():
    for way, read in READ_ROW.items():
        CASES[f"{about} row, {way}"] = row(make, read)
CASES |= {
    "itemgetter": (lambda: {"beta": BEFORE}, lambda d: get_item(d), lambda d: d.update(beta=AFTER)),
    "methodcaller": (lambda: {"beta": BEFORE}, lambda d: pop(d), lambda d: d.update(beta=AFTER)),
    "json": (
        lambda: {"beta": BEFORE},
        lambda d: json.loads(json.dumps(d))["beta"],
        lambda d: d.update(beta=AFTER),
    ),
    "a bound method": (method_of_a_dict, lambda n: n.read("beta"), lambda n: n.change()),
    "proxy": (
        lambda: (lambda d: (types.MappingProxyType(d), d))({"beta": BEFORE}),
        lambda two: two[0]["beta"],
        lambda two: two[1].update(beta=AFTER),
    ),
    "view": (
        lambda: (lambda d: (d.values(), d))({"beta": BEFORE}),
        lambda two: sum(two[0]),
        lambda two: two[1].update(beta=AFTER),
    ),
    "reference": (by_reference, lambda two: two[0]().beta, lambda two: setattr(two[1], "beta", AFTER)),
    "context": (lambda: VARIABLE.set(BEFORE), lambda _: VARIABLE.get(), lambda _: VARIABLE.set(AFTER)),
    "globals()": (lambda: set_global(BEFORE), lambda _: globals()["GLOBAL"], lambda _: set_global(AFTER)),
    "len": (Measured, len, put("beta")),
    "float": (Measured, float, put("beta")),
    "grows": (lambda: [0.0] * 300, lambda r: 1.0 if len(r) == 300 else 3.0, lambda r: r.append(0.0)),
    "set": (lambda: set(range(300)), lambda s: 3.0 if -1 in s else 1.0, lambda s: s.add(-1)),
    "elements of a set": (
        lambda: {Measured()},
        lambda s: sum(float(m) for m in s),
        lambda s: put("beta")(*s),
    ),
    "keys of a dict": (
        lambda: {Measured(): 0},
        lambda s: sum(float(m) for m in s),
        lambda s: put("beta")(*s),
    ),
    "optimizer": (optimizer, lambda o: o.param_groups[0]["lr"], lambda o: o.param_groups[0].update(lr=AFTER)),
    "scheduler": (scheduled, lambda s: s.get_last_lr()[0], lambda s: (s.optimizer.step(), s.step())),
    "Sequential": (Private, lambda net: net.weight(), put("_beta")),
    "Linear": of_torch(PrivateLinear),
    "PyroModule": of_torch(PrivatePyro),
    "ModuleList": of_torch(PrivateList),
    "is_nonzero": (lambda: torch.zeros(()), lambda t: 3.0 if t.is_nonzero() else 1.0, lambda t: t.fill_(1)),
    "torch.is_nonzero": (
        lambda: torch.zeros(()),
        lambda t: 3.0 if torch.is_nonzero(t) else 1.0,
        lambda t: t.fill_(1),
    ),
    "in a tensor": (lambda: torch.zeros(2), lambda t: 3.0 if 1.0 in t else 1.0, lambda t: t.fill_(1)),
}


class Holding(Program):
    """The scale of the prior is a number in some holder, which changes once."""

    def __init__(self, make, read, change):
        super().__init__()
        self.holder, self.read, self.change = make(), read, change

    def before(self, i):
        if i == AT:
            self.change(self.holder)
        return self.x

    def model(self, x):
        with pyro.poutine.scale(scale=float(self.read(self.holder))):
            super().model(x)

    def guide(self, x):
        with pyro.poutine.scale(scale=float(self.read(self.holder))):
            super().guide(x)


# One of each kind; the others take minutes.
SOME = (
    "dataclass, astuple",
    "dataclass, match",
    "of dict, attrgetter",
    "dict dict, key enum",
    "large row, last",
    "Sequential",
    "optimizer",
    "is_nonzero",
)


@pytest.mark.parametrize("case", SOME)
def test_a_change_in_a_holder_is_seen_at_once(case):
    assert_seen(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(CASES.keys() - set(SOME)))
def test_a_change_in_any_holder_is_seen_at_once(case):
    assert_seen(case)


def assert_seen(case):
    """Pyro's losses, compiled up to the step of the change or not at all."""
    svi = assert_pyros(lambda: Holding(*CASES[case]), steps=STEPS)
    assert svi.compiled_share in (0, (AT - 1) / STEPS), svi.refused
