"""Which architecture runs is said for one call, whatever happens around and inside of it."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from lightning_nas import InputChoice, LayerChoice, OwnSpace, RepeatChoice, ValueChoice, freeze
from lightning_nas.errors import SettingError
from tests.helpers.own_networks import OWN, Nested, Shared
from tests.helpers.ranks import ROOT, run_ranks


class Net(nn.Module):
    """A layer, a depth and a width, in parts that can be computed again."""

    def __init__(self, again=None, explode=False):
        super().__init__()
        width = ValueChoice([3, 5], "width")
        self.depth = ValueChoice([1, 2], "depth")
        self.a = LayerChoice([nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Identity()])
        self.b = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.5), nn.Tanh(), nn.Linear(width, 4))
        self.c = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(self.depth))
        self.again, self.explode = again or (lambda function, *args: function(*args)), explode

    def forward(self, x):
        x = self.again(self.inner, x)
        if self.explode:
            raise RuntimeError("inside")
        return self.again(self.deeper, x)

    def inner(self, x):
        return self.b(self.a(x))

    def deeper(self, x):
        for layer in self.c[: self.depth]:
            x = layer(x)
        return x


def supernet(again=None, **settings):
    """A network whose weights are always the same."""
    torch.manual_seed(0)
    space = OwnSpace(Net, settings)
    network = space.network({})
    network.net.again = again or network.net.again
    return network


def gradients(network, gates, x):
    torch.manual_seed(1)  # dropout
    output = network(x, gates)
    network.zero_grad()
    return output, list(torch.autograd.grad(output.square().sum(), list(network.parameters()), allow_unused=True))


def assert_same(ours, expected):
    (output, got), (other, wanted) = ours, expected
    assert torch.equal(output, other)
    assert [g is None for g in got] == [g is None for g in wanted]
    assert all(g is None or torch.equal(g, w) for g, w in zip(got, wanted, strict=True))


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))


def test_an_exception_leaves_nothing_behind():
    network = supernet(explode=True)
    with pytest.raises(RuntimeError, match="inside"):
        network(X, network.space.gates((0, 0, 0)))
    for call in (network.net.a, network.net):
        with pytest.raises(SettingError, match="no architecture is chosen in this call"):
            call(X)


def test_without_gates_a_choice_says_what_it_needs():
    for made in (LayerChoice([nn.ReLU(), nn.Tanh()]), RepeatChoice([nn.ReLU()], [0, 1], "depth")):
        with pytest.raises(SettingError, match=r"no architecture is chosen in this call; call Space.of\(net\)"):
            made(X)
    for made in (InputChoice(2, label="a"), InputChoice(2, None, label="a")):
        with pytest.raises(SettingError, match=r"^a.*: no architecture"):
            made([X, X])


class Outer(nn.Module):
    """A network that calls another in its forward pass."""

    def __init__(self, inner):
        super().__init__()
        self.a = LayerChoice([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)])
        self.width = ValueChoice([3, 5], "width")
        self.b, self.last = nn.Linear(4, self.width), nn.Linear(self.width, 2)
        self.called = [inner]

    def forward(self, x, taken):
        (inner,) = self.called
        x = inner(self.a(x), taken)
        return self.last(self.b(x))


def test_a_network_in_the_forward_pass_of_another_has_its_own_choices():
    inner = supernet().eval()
    space = OwnSpace(Outer, {"inner": inner})
    outer = space.network({})
    for one in space:
        for other in inner.space:
            plain = freeze(outer, one)
            first = inner(plain.a(X), inner.space.gates(other))
            expected = plain.last(plain.b(first))
            assert torch.equal(outer(X, space.gates(one), taken=inner.space.gates(other)), expected)


def test_two_instances_side_by_side():
    one, other = supernet().eval(), supernet().eval()
    with torch.no_grad():
        other.net.a[0].weight.zero_()
    space = one.space
    for a in space:
        for b in space:
            first = one(X, space.gates(a))
            assert torch.equal(other(X, space.gates(b)), freeze(other, b)(X))
            assert torch.equal(one(X, space.gates(a)), first)


def test_two_threads_with_different_gates():
    network = supernet().eval()
    space, wrong = network.space, []
    expected = {a: network(X, space.gates(a)).detach() for a in space}
    start = threading.Barrier(2)

    def run(numbers):
        start.wait()
        for number in numbers:
            a = list(space)[number % space.size]
            output = network(X, space.gates(a)).detach()
            if not torch.equal(output, expected[a]):
                wrong.append(a)

    threads = [threading.Thread(target=run, args=(numbers,)) for numbers in (range(400), range(400, 0, -1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_thread_of_the_forward_pass_itself_says_that_nothing_is_chosen():
    said = []

    def apart(function, x):
        def call():
            try:
                function(x)
            except SettingError as error:
                said.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        return x

    network = supernet(apart)
    network(X, network.space.gates((0, 2, 0)))
    assert [text.partition(":")[0] for text in said] == ["a", "depth"]


def plainly(function, *args):
    return checkpoint(function, *args, use_reentrant=False)


def nested(function, *args):
    return plainly(lambda x: plainly(lambda x: plainly(function, x), x), *args)


def without_early_stop(function, *args):
    with set_checkpoint_early_stop(False):
        return plainly(function, *args)


def with_hooks(function, *args):
    def within(x):
        with torch.autograd.graph.save_on_cpu():
            return function(x)

    return plainly(within, *args)


@pytest.mark.parametrize("again", [plainly, nested, without_early_stop, with_hooks])
def test_what_is_computed_again_runs_the_same(again):
    plain, network = supernet(), supernet(again)
    space = plain.space
    for a in space:
        assert_same(gradients(network, space.gates(a), X), gradients(plain, space.gates(a), X))
    weights = {"a": torch.tensor([0.5, 0.2, 0.3]), "width": 1, "depth": 0}
    assert_same(gradients(network, weights, X), gradients(plain, weights, X))


def test_what_is_computed_again_after_other_forward_passes_runs_the_same():
    plain, network = supernet().eval(), supernet(nested).eval()
    space = plain.space
    outputs, expected = ([n(X, space.gates(a)).square().sum() for a in space] for n in (network, plain))
    one = torch.autograd.grad(sum(outputs), list(network.parameters()))
    other = torch.autograd.grad(sum(expected), list(plain.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def reentrant(function, *args):
    return checkpoint(function, *args, use_reentrant=True)


def test_checkpoints_that_enter_again_say_what_to_pass():
    network = supernet(reentrant)
    space, x = network.space, X.clone().requires_grad_()
    network(x, space.gates((0, 0, 0)))  # forward it runs
    losses = [network(x, space.gates(a)).sum() for a in ((0, 0, 0), (0, 2, 0), (1, 2, 1))]
    for loss in losses:
        with pytest.raises(SettingError, match="pass use_reentrant=False"):
            loss.backward()
    loss = network(x, space.gates((0, 0, 1))).sum()
    with network.active(space.gates((1, 1, 0))), pytest.raises(SettingError, match="pass use_reentrant=False"):
        loss.backward()  # not with what runs now


def test_a_forward_pass_within_a_backward_pass():
    """As of an implicit layer: it has gates of its own, wherever it is."""
    network = supernet().eval()
    space = network.space

    class Implicit(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * network(X, space.gates((1, 0, 1))).sum()

    x = torch.ones(1, requires_grad=True)
    (got,) = torch.autograd.grad(Implicit.apply(x), x)
    assert got == network(X, space.gates((1, 0, 1))).sum()


def test_functional_calls_and_transforms():
    network = supernet().eval()
    space = network.space
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    halved = {name: p / 2 for name, p in parameters.items()}
    for a in space:
        gates = space.gates(a)
        other = supernet().eval()
        other.load_state_dict(halved)
        assert torch.equal(functional_call(network, halved, (X, gates)), other(X, gates))

        def loss(parameters, example, gates=gates):
            return functional_call(network, parameters, (example[None], gates)).square().sum()

        each = vmap(grad(loss), in_dims=(None, 0))(parameters, X)
        for k, example in enumerate(X):
            _, alone = gradients(network, gates, example[None])
            for (name, got), expected in zip(each.items(), alone, strict=True):
                expected = torch.zeros_like(got[k]) if expected is None else expected
                torch.testing.assert_close(got[k], expected, rtol=1e-5, atol=1e-6, msg=name)


def test_in_the_middle_of_a_sequential_network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 4),
        LayerChoice([nn.ReLU(), nn.Tanh()]),
        nn.Sequential(RepeatChoice([nn.Linear(4, 4)], [0, 1])),
        nn.ELU(),
    )
    space = OwnSpace(net)
    assert [choice.name for choice in space.choices] == ["1", "2/0"]
    network = space.network({})
    for a in space:
        frozen = freeze(net, space.to_names(a))
        assert type(frozen) is nn.Sequential
        assert torch.equal(frozen(X), network(X, space.gates(a)))


@pytest.mark.parametrize(
    "case", [OWN["nested"], OWN["shared"], OWN["transformer"]], ids=["nested", "shared", "transformer"]
)
def test_networks_with_choices_are_copied_and_pickled(case):
    torch.manual_seed(0)
    net = case.network()
    if case.network is Nested:  # a built network, before it is searched and after
        for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert OwnSpace(again).choices == OwnSpace(net).choices
    network = case.space().network(case.inputs).eval()
    space, batch = network.space, case.batch()
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert again.space.choices == space.choices
        for a in list(space)[::7]:
            assert torch.equal(again(batch, space.gates(a)), network(batch, space.gates(a)))
            assert torch.equal(freeze(again, a)(batch), freeze(network, a)(batch))


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True], ids=["the user's module", "the network"])
@pytest.mark.parametrize("name", ["shared", "transformer", "inputs"])
def test_compiled_with_changing_gates(name, whole):
    """No wrong result, and no more compilations than PyTorch's limit of them for each part."""
    torch.manual_seed(0)
    case = OWN[name]
    plain = case.space().network(case.inputs).eval()
    network, space = copy.deepcopy(plain), plain.space
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    (network if whole else network.net).compile(backend="eager")
    batch = case.batch()
    drawn = [space.tables.unrank(k * (space.size - 1) // 24) for k in range(25)]
    for a in drawn + drawn[::-1]:
        assert torch.equal(network(batch, space.gates(a)), plain(batch, space.gates(a))), a
    for seed in range(4):  # weights that change are not compiled in
        torch.manual_seed(seed)
        gates = {c.name: torch.rand(len(c.options)) if c.relaxable else len(c.options) - 1 for c in space.choices}
        torch.testing.assert_close(network(batch, gates), plain(batch, gates), rtol=1e-6, atol=1e-6)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    limit = torch._dynamo.config.recompile_limit
    assert 1 <= graphs <= limit * (1 + len(list(network.modules())))


class Sliced(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = ValueChoice([3, 4], "width")

    def forward(self, x):
        return x[:, : self.width]


@pytest.mark.slow
def test_a_tensor_that_is_sliced_by_a_number_is_compiled_with_int_only():
    """PyTorch's compiler slices tensors by plain numbers."""
    network = OwnSpace(Sliced).network({})
    assert network(X, network.space.gates((0,))).shape == (6, 3)
    torch._dynamo.reset()
    network.net.compile(backend="eager")
    with pytest.raises(TypeError, match="slice indices must be integers") as error:
        network(X, network.space.gates((0,)))
    assert error.value.__notes__ == ["In a forward pass int() of a number that is chosen is the plain number."]


TWO_RANKS = """
import sys
sys.path.insert(0, {root!r})
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tests.helpers.own_networks import OWN

torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(0)
case = OWN["shared"]
network = case.space().network(case.inputs).double()
wrapped = DistributedDataParallel(network, find_unused_parameters=True)
alone = case.space().network(case.inputs).double()
alone.load_state_dict(network.state_dict())
space, rank = network.space, dist.get_rank()
batches = [case.batch().double() * (1 + r) for r in range(2)]
for step, architecture in enumerate(list(space)[::5]):
    gates = space.gates(architecture)
    wrapped.zero_grad(), alone.zero_grad()
    wrapped(batches[rank], gates).square().sum().backward()
    sum(alone(batch, gates).square().sum() / 2 for batch in batches).backward()
    for (name, p), q in zip(network.named_parameters(), alone.parameters()):
        expected = torch.zeros_like(q) if q.grad is None else q.grad
        got = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12, msg=name)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_average_the_gradients_of_a_path(tmp_path):
    run_ranks(TWO_RANKS.format(root=str(ROOT)), tmp_path)
    assert Shared.__module__ == "tests.helpers.own_networks"
