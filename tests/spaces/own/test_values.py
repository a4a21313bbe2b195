"""Numbers that are chosen: arithmetic, their use, and what a user would do wrong with them."""

import copy
import math
import operator
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from lightning_nas import OwnSpace, ValueChoice, freeze
from lightning_nas.errors import SettingError
from lightning_nas.spaces.own.running import Running
from lightning_nas.spaces.own.values import Value


def space_of(**values):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name, options in values.items():
                setattr(self, name, ValueChoice(options, name))

    return OwnSpace(Net)


BINARY = [getattr(operator, n) for n in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "lshift", "rshift")]
BINARY += [operator.and_, operator.or_, operator.xor]
UNARY = [operator.neg, operator.pos, abs, operator.invert, math.ceil, math.floor, math.trunc, round]


@pytest.mark.parametrize("function", BINARY, ids=lambda f: f.__name__)
def test_arithmetic_of_two(function):
    a, b = ValueChoice([3, 5, 4], "a"), ValueChoice([1, 2], "b")
    results = [
        (function(a, b), function),
        (function(a, 2), lambda x, y: function(x, 2)),
        (function(7, b), lambda x, y: function(7, y)),
        (function(a, a), lambda x, y: function(x, x)),
        (function(function(a, b), a), lambda x, y: function(function(x, y), x)),
    ]
    space = space_of(a=[3, 5, 4], b=[1, 2])
    for value, expected in results:
        assert isinstance(value, Value)
        numbers = []
        for architecture in space:
            x, y = ((3, 5, 4)[architecture[0]], (1, 2)[architecture[1]])
            numbers.append(expected(x, y))
            with Running(space, space.gates(architecture)).active():
                assert value.number == numbers[-1]
                assert value == numbers[-1]
                assert hash(value) == hash(numbers[-1])
                assert f"{value}" == str(numbers[-1])
        assert value.number == max(numbers)  # outside


@pytest.mark.parametrize("function", UNARY, ids=lambda f: f.__name__)
def test_arithmetic_of_one(function):
    a = ValueChoice([3, -5, 4], "a")
    value, half = function(a), round(a / 2, 1)
    space = space_of(a=[3, -5, 4])
    for architecture in space:
        x = (3, -5, 4)[architecture[0]]
        with Running(space, space.gates(architecture)).active():
            assert value.number == function(x)
            assert half.number == round(x / 2, 1)
            assert divmod(a, 2) == divmod(x, 2)
            assert int(a) == x
            assert float(a) == x
            assert math.ceil(a * 1.3) == math.ceil(x * 1.3)
            assert f"{a:>4}" == f"{x:>4}"


def test_numbers_of_other_libraries_are_numbers():
    a = ValueChoice([3, 5], "a")
    for value in (a * np.int64(2), np.int64(2) * a, a * np.float32(2), 2.0 * a, True + a):
        assert isinstance(value, Value)
        assert value.options == {"a": (3, 5)}


def test_the_largest_of_many_is_found_soon():
    widths = [ValueChoice([1, 2, 3, 4], f"w{k}") for k in range(40)]
    total = sum(widths)
    assert total.number == 160
    assert (total - widths[0] * 3 - widths[1]).number == 38 * 4 - 2  # of those that occur twice not the largest


def test_copies_are_the_same_number():
    a = ValueChoice([3, 5], "a") * 2
    space = space_of(a=[3, 5])
    for again in (copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        with Running(space, {"a": 0}).active():
            assert again.number == 6
        assert again == a == 10


def test_sizes_views_slices_and_ranges():
    a, b = ValueChoice([2, 4], "a"), ValueChoice([1, 3], "b")
    space = space_of(a=[2, 4], b=[1, 3])
    for architecture in space:
        n, m = (2, 4)[architecture[0]], (1, 3)[architecture[1]]
        x = torch.arange(n * m * 5.0)
        with Running(space, space.gates(architecture)).active():
            for got, expected in (
                (x.view(a, b, 5), x.view(n, m, 5)),
                (x.view(-1, a * b), x.view(-1, n * m)),
                (x.reshape((b, 5 * a)), x.reshape(m, 5 * n)),
                (x[: a + b], x[: n + m]),
                (x[..., a - 1], x[..., n - 1]),
                (x.narrow(0, b, a), x.narrow(0, m, n)),
                (x.unflatten(0, (a, -1)), x.unflatten(0, (n, -1))),
                (x.view(5, n * m).expand(b, -1, -1), x.view(5, n * m).expand(m, -1, -1)),
                (torch.zeros(a, b), torch.zeros(n, m)),
                (torch.full((a,), 2.0), torch.full((n,), 2.0)),
                (torch.arange(int(a)), torch.arange(n)),
                (nn.functional.pad(x, (a, b)), nn.functional.pad(x, (n, m))),
                (x * a, x * n),
                (a * x, n * x),
                (x / b, x / m),
                (b / (x + 1), m / (x + 1)),
                (x + a, x + n),
                (x - a, x - n),
                (a - x, n - x),
                (x**b, x**m),
                (x.view(n * m, 5) * a**-0.5, x.view(n * m, 5) * n**-0.5),
                (torch.stack(x.split(int(a * b))), torch.stack(x.split(n * m))),
                (torch.stack(x.chunk(int(a))), torch.stack(x.chunk(n))),
                (x > a, x > n),
            ):
                assert got.shape == expected.shape
                assert torch.equal(got, expected)
            assert list(range(a)) == list(range(n))
            assert [0] * b == [0] * m
            assert "abcdef"[:a] == "abcdef"[:n]
            assert (a, b) == (n, m)
            assert (a > 2) is (n > 2)
            assert max(a, b) == max(n, m)
            assert bool(a - 2) is bool(n - 2)


# -- what a constructor may not do with them ---------------------------------------------------------------------------


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = ValueChoice([4, 8], "width")
        self.read = nn.Linear(3, self.width)
        self.build(self.width)

    def build(self, width):
        pass

    def forward(self, x):
        return self.read(x)


def net(function):
    """A network whose constructor does something more."""
    return type("Net", (Base,), {"build": function})


class Kept(nn.Module):
    """Keeps a part without keeping the number."""

    def __init__(self, part):
        super().__init__()
        if isinstance(part, nn.Parameter):
            self.part = part
        else:
            self.register_buffer("part", part, persistent=False)


def keeps(part):
    def build(self, width):
        self.kept = Kept(part(width))

    return build


WRONG = {
    "int": (lambda self, width: setattr(self, "a", nn.Linear(3, int(width * 1.5))), "width: int.. would forget"),
    "float": (lambda self, width: setattr(self, "scale", float(width)), "width: float.., .* would forget"),
    "math.sqrt": (lambda self, width: setattr(self, "scale", math.sqrt(width)), "width: float.., .* would forget"),
    "if": (
        lambda self, width: setattr(self, "a", nn.ReLU() if width > 4 else nn.Tanh()),
        "width: a constructor decides",
    ),
    "if not equal": (lambda self, width: width != 8 and nn.Linear(2, 2), "width: a constructor decides by it"),
    "max": (lambda self, width: nn.Linear(3, max(width, 6)), "width: a constructor decides by it"),
    "a table": (lambda self, width: {4: 1, 8: 2}.get(width, 3), "width: a constructor decides by it"),
    "a parameter": (keeps(lambda width: nn.Parameter(torch.zeros(width))), "the shape of part of kept follows"),
    "a buffer": (keeps(torch.zeros), "the shape of part of kept follows a value choice"),
    "torch.arange": (keeps(torch.arange), "arange.*must be Number, not Chosen"),
    "math.gcd": (
        lambda self, width: setattr(self, "a", nn.GroupNorm(math.gcd(width, 8), 8)),
        "num_groups of a follows",
    ),
    "a name": (lambda self, width: self.add_module(f"a{width}", nn.Tanh()), "whether there is any of a4 follows"),
    "a class": (lambda self, width: self.add_module("a", [nn.ReLU, nn.Tanh][width // 8]()), "the class of a follows"),
    "a range": (
        lambda self, width: setattr(self, "a", nn.ModuleList(nn.Tanh() for _ in range(ValueChoice([1, 2], "depth")))),
        "depth: no module keeps the number",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_constructor_that_takes_a_plain_number_out_is_refused(what):
    build, match = WRONG[what]
    space = OwnSpace(net(build))
    assert space.choices[0].name == "width"
    with pytest.raises(SettingError, match=match):
        space.network({})


@pytest.mark.parametrize("what", WRONG)
def test_and_can_be_built_with_each_number(what):
    """As a search of trials does."""
    space = OwnSpace(net(WRONG[what][0]))
    for architecture in space:
        built = space.restrict(architecture).network({})
        width = int(space.to_names(architecture)["width"])
        assert built.net.width == width
        assert built(torch.zeros(2, 3)).shape == (2, width)


RIGHT = {
    "math.ceil": lambda self, width: setattr(self, "a", nn.Linear(math.ceil(width * 0.75), 2)),
    "round": lambda self, width: setattr(self, "a", nn.Linear(round(width * 0.6), 2)),
    "a condition that always holds": lambda self, width: setattr(self, "a", nn.Linear(max(width, 2), 2)),
    "a root": lambda self, width: setattr(self, "scale", width**-0.5),
    "printing": lambda self, width: f"{width:>4} {self}",
    "a parameter that is sliced": lambda self, width: setattr(self, "a", nn.Parameter(torch.zeros(1, width))),
    "groups": lambda self, width: setattr(self, "a", nn.Conv2d(width, width, 3, groups=width)),
    "heads": lambda self, width: setattr(self, "a", nn.MultiheadAttention(width, ValueChoice([1, 2, 4], "heads"))),
    "a dictionary": lambda self, width: setattr(self, "sizes", {"widths": [width, (width + 1, "x")]}),
}


@pytest.mark.parametrize("what", RIGHT)
def test_what_a_constructor_may_do(what):
    space = OwnSpace(net(RIGHT[what]))
    network = space.network({})
    assert "out_features=8" in repr(network)
    for architecture in space:
        names = space.to_names(architecture)
        width = int(names["width"])
        frozen = freeze(network, architecture)
        assert frozen.width == width
        assert frozen.width.__class__ is int
        if what == "a root":
            assert frozen.scale == width**-0.5
        if what == "a dictionary":
            assert frozen.sizes == {"widths": [width, (width + 1, "x")]}
        assert torch.equal(frozen(torch.ones(2, 3)), network(torch.ones(2, 3), space.gates(architecture)))


SHARED_BY_ALL = ValueChoice([2, 3], "global")


class Global(nn.Module):
    def __init__(self, kernel=ValueChoice([1, 3], "kernel"), depth=ValueChoice([1, 2], "depth")):  # noqa: B008
        super().__init__()
        self.conv = nn.Conv1d(2, SHARED_BY_ALL, kernel, padding=kernel // 2)
        self.depth = depth
        self.more = nn.ModuleList(nn.Conv1d(SHARED_BY_ALL, SHARED_BY_ALL, 1) for _ in range(depth))

    def forward(self, x):
        x = self.conv(x)
        for layer in self.more[: self.depth]:
            x = layer(x)
        return x


def test_value_choices_may_be_made_before_the_constructor_runs():
    space = OwnSpace(Global)
    assert {choice.name: choice.options for choice in space.choices} == {
        "global": ("2", "3"), "kernel": ("1", "3"), "depth": ("1", "2")
    }  # fmt: skip
    network, x = space.network({}), torch.randn(3, 2, 5)
    for architecture in space:
        names = space.to_names(architecture)
        frozen = freeze(network, architecture)
        assert len(frozen.more) == int(names["depth"])
        assert tuple(frozen.conv.weight.shape) == (int(names["global"]), 2, int(names["kernel"]))
        assert torch.equal(frozen(x), network(x, space.gates(architecture)))
    assert SHARED_BY_ALL.number == 3
    assert torch.zeros(SHARED_BY_ALL).shape == (3,)  # as before: no network of a search has it


def test_a_network_of_a_search_has_no_width_outside_of_a_forward_pass():
    network = OwnSpace(Base).network({})
    with pytest.raises(SettingError, match="width: no architecture is chosen in this call"):
        network.net(torch.zeros(2, 3))
    with pytest.raises(SettingError, match="width: no architecture"):
        operator.index(network.net.width * 2)
    assert Base()(torch.zeros(2, 3)).shape == (2, 8)  # of the class itself the largest


class Chunks(Base):
    def forward(self, x):
        return torch.stack(self.read(x).chunk(self.width, dim=1))


def test_functions_that_take_nothing_but_an_int_say_what_helps():
    space = OwnSpace(Chunks)
    with pytest.raises(TypeError, match="must be int, not Chosen") as error:
        space.network({})(torch.zeros(2, 3), space.gates((0,)))
    assert error.value.__notes__ == ["In a forward pass int() of a number that is chosen is the plain number."]
