"""PyTorch's transformers with sizes to choose: what runs of them is PyTorch's layer of these sizes, bit for bit."""

import itertools

import pytest
import torch
from torch import nn

from lightning_nas import LayerChoice, Space, ValueChoice, freeze
from lightning_nas.operations.sliced import SlicedMultiheadAttention

WIDTHS, HEADS, WIDE, DEPTHS = (8, 16), (2, 4), (12, 24), (1, 2, 3)
LENGTH, COLUMNS = 6, 3
PADDED = torch.tensor([[False] * 6, [False] * 4 + [True] * 2, [False] * 3 + [True] * 3])
CAUSAL = nn.Transformer.generate_square_subsequent_mask(LENGTH)
MASKS = {"none": None, "float": CAUSAL, "bool": CAUSAL != 0}
PADDING = {"none": None, "float": torch.zeros(PADDED.shape).masked_fill(PADDED, -torch.inf), "bool": PADDED}


def layer_of(kind, batch_first=True, **settings):
    width, heads, wide = ValueChoice(WIDTHS, "width"), ValueChoice(HEADS, "heads"), ValueChoice(WIDE, "wide")
    return kind(width, heads, wide, batch_first=batch_first, dropout=0.0, **settings)


class Attention(nn.Module):
    """Reads the leading part of its input, as wide as it is."""

    def __init__(self, batch_first=True, bias=True):
        super().__init__()
        self.width = ValueChoice(WIDTHS, "width")
        heads = ValueChoice(HEADS, "heads")
        self.attention = nn.MultiheadAttention(self.width, heads, batch_first=batch_first, bias=bias)

    def forward(self, x, others=None, **settings):
        x = x[..., : self.width]
        others = x if others is None else others[..., : self.width]
        return self.attention(x, others, others, **settings)


class Encoder(nn.Module):
    def __init__(self, norm_first=False, nested=True):
        super().__init__()
        self.width = ValueChoice(WIDTHS, "width")
        layer = layer_of(nn.TransformerEncoderLayer, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, ValueChoice(DEPTHS, "depth"), enable_nested_tensor=nested)

    def forward(self, x, **masks):
        return self.encoder(x[..., : self.width], **masks)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = ValueChoice(WIDTHS, "width")
        self.decoder = nn.TransformerDecoder(layer_of(nn.TransformerDecoderLayer), ValueChoice(DEPTHS, "depth"))

    def forward(self, x, memory, **masks):
        return self.decoder(x[..., : self.width], memory[..., : self.width], **masks)


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = ValueChoice(WIDTHS, "width")
        heads, wide, depth = ValueChoice(HEADS, "heads"), ValueChoice(WIDE, "wide"), ValueChoice(DEPTHS, "depth")
        self.transformer = nn.Transformer(self.width, heads, depth, depth, wide, dropout=0.0, batch_first=True)

    def forward(self, x, target):
        return self.transformer(x[..., : self.width], target[..., : self.width])


def both(cls, **arguments):
    """The network of a search, and for each architecture its gates and PyTorch's own network with its weights."""
    torch.manual_seed(0)
    space = Space.of(type(cls.__name__, (cls,), {"__init__": lambda self: cls.__init__(self, **arguments)}))
    network = space.network({})
    for values in itertools.product(*(choice.values for choice in space.choices)):
        names = {choice.name: str(value) for choice, value in zip(space.choices, values, strict=True)}
        architecture = space.from_names(names)
        yield network, space.gates(architecture), freeze(network, architecture)


def same(outputs, of_plain):
    outputs, of_plain = ([x] if torch.is_tensor(x) else list(x) for x in (outputs, of_plain))
    return all(a is b is None or torch.equal(a, b) for a, b in zip(outputs, of_plain, strict=True))


def gradients(module, outputs, names):
    """The gradients by the parameters of a module, for the frozen one's names and shapes."""
    outputs = outputs if torch.is_tensor(outputs) else outputs[0]
    parameters = dict(module.named_parameters())
    found = torch.autograd.grad(outputs.square().sum(), list(parameters.values()), allow_unused=True)
    return {name: g for name, g in zip(parameters, found, strict=True) if name in names}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("batch_first", "bias"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_is_that_of_its_sizes(mask, batch_first, bias, need_weights):
    x = torch.rand(COLUMNS, LENGTH, max(WIDTHS))
    x = x if batch_first else x.transpose(0, 1)
    for network, gates, plain in both(Attention, batch_first=batch_first, bias=bias):
        assert type(plain.attention) is nn.MultiheadAttention
        for padded in (None, PADDING[mask]):
            for training in (True, False):
                network.train(training), plain.train(training)
                given = {"attn_mask": MASKS[mask], "key_padding_mask": padded, "need_weights": need_weights}
                assert same(network(x, gates, **given), plain(x, **given))
        others = x.flip(0)
        assert same(network(x, gates, others=others), plain(x, others))
        assert same(network(x[0], gates, average_attn_weights=False), plain(x[0], average_attn_weights=False))


def test_causal_attention_without_weights_takes_the_causal_kernel():
    x = torch.rand(COLUMNS, LENGTH, max(WIDTHS))
    given = {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}
    for network, gates, plain in both(Attention):
        assert same(network(x, gates, **given), plain(x, **given))
        out = network(x, gates, **given)[0]
        x_after = x.clone()
        x_after[:, -1] = 0
        assert torch.equal(network(x_after, gates, **given)[0][:, :-1], out[:, :-1])  # nothing looks ahead


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_is_that_of_its_sizes_with_its_gradients(mask, norm_first):
    x = torch.rand(COLUMNS, LENGTH, max(WIDTHS))
    for network, gates, plain in both(Encoder, norm_first=norm_first, nested=not norm_first):
        given = {"mask": MASKS[mask], "src_key_padding_mask": PADDING[mask]}
        for training in (True, False):  # PyTorch's fused kernel does not run where gradients are wanted
            network.train(training), plain.train(training)
            ours, theirs = network(x, gates, **given), plain(x, **given)
            assert torch.equal(ours, theirs)
            names = plain.state_dict()
            own = gradients(network.net, ours, names)
            for name, gradient in gradients(plain, theirs, names).items():
                part = own[name]
                if part.shape != gradient.shape and "in_proj" in name:  # queries, keys and values, one below the other
                    part = part.unflatten(0, (3, -1))[:, : len(gradient) // 3].flatten(0, 1)
                assert torch.equal(part[tuple(map(slice, gradient.shape))], gradient), name


def test_a_decoder_is_that_of_its_sizes():
    x, memory = torch.rand(2, COLUMNS, LENGTH, max(WIDTHS))
    for network, gates, plain in both(Decoder):
        given = {"tgt_mask": CAUSAL, "tgt_is_causal": True, "memory_key_padding_mask": PADDED}
        for training in (True, False):
            network.train(training), plain.train(training)
            assert torch.equal(network(x, gates, memory=memory, **given), plain(x, memory, **given))
        assert len(plain.decoder.layers) == plain.decoder.num_layers == len(set(plain.decoder.layers))


def test_a_whole_transformer_is_that_of_its_sizes():
    x, target = torch.rand(2, COLUMNS, LENGTH, max(WIDTHS))
    for network, gates, plain in both(Whole):
        assert torch.equal(network(x, gates, target=target), plain(x, target))


class Calls(torch.utils._python_dispatch.TorchDispatchMode):
    """The operations that run inside."""

    def __enter__(self):
        self.names = set()
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.__name__.partition(".")[0])
        return function(*args, **(kwargs or {}))


FUSED = {"_transformer_encoder_layer_fwd", "_native_multi_head_attention", "_nested_tensor_from_mask"}


@torch.no_grad()
def test_no_fused_kernel_runs_before_a_network_is_frozen():
    x = torch.rand(COLUMNS, LENGTH, max(WIDTHS))
    ran = set()
    for network, gates, plain in both(Encoder):
        network.eval(), plain.eval()
        for padded in (None, PADDED):
            with Calls() as calls:
                ours = network(x, gates, src_key_padding_mask=padded)
            assert not calls.names & FUSED
            with Calls() as calls:
                theirs = plain(x, src_key_padding_mask=padded)
            ran |= calls.names & FUSED
            kept = slice(None) if padded is None else ~padded  # nested tensors leave zeros at padded places
            torch.testing.assert_close(ours[kept], theirs[kept])
    assert ran == {"_transformer_encoder_layer_fwd", "_nested_tensor_from_mask"}
    for network, gates, plain in both(Attention):
        with Calls() as calls:
            network.eval()(x, gates)
        assert not calls.names & FUSED
        ran |= {name for name in FUSED if "native" in name and (plain.eval(), plain(x))}
    child = network.space.restrict(network.space.from_names({"width": "16", "heads": "2"})).network({})
    assert type(child.net.attention) is SlicedMultiheadAttention  # a child is run as the network of the search is


@torch.no_grad()
def test_in_evaluation_a_child_puts_out_what_its_path_does():
    x = torch.rand(COLUMNS, LENGTH, max(WIDTHS))
    for cls in (Encoder, Attention):
        for network, gates, _ in both(cls):
            architecture = tuple(gates[choice.name] for choice in network.space.choices)
            child = network.space.restrict(architecture).network({}).eval()
            child.load_state_dict(network.child_state(architecture))
            assert same(child(x), network.eval()(x, gates))


class Mixed(nn.Module):
    """A layer to choose inside of PyTorch's encoder layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.layer.linear1 = LayerChoice([self.layer.linear1, nn.Linear(8, 16)], label="wide")
        self.ordinary = nn.MultiheadAttention(8, 2, kdim=4, vdim=4, batch_first=True)

    def forward(self, x):
        return self.ordinary(self.layer(x), x[..., :4], x[..., :4])[0]


@torch.no_grad()
def test_what_is_not_chosen_stays_pytorchs_and_a_chosen_layer_inside_is_asked():
    x, network = torch.rand(2, 5, 8), Space.of(Mixed).network({}).eval()
    first, second = (network(x, {"wide": option}) for option in (0, 1))
    assert not torch.equal(first, second)
    weights = torch.tensor([0.5, 0.5])
    assert not torch.equal(network(x, {"wide": weights}), first)
    assert type(network.net.ordinary) is nn.MultiheadAttention
    plain = freeze(network, {"wide": "1"}).train()  # no dropout: as in evaluation, by the way of training
    assert torch.equal(plain(x), second)
    assert not plain.layer._forward_pre_hooks


class OwnAttention(nn.Module):
    """Attention as users write it: heads of one width, whose number is chosen."""

    def __init__(self, head_width=4):
        super().__init__()
        self.width, self.heads = ValueChoice(WIDTHS, "width"), ValueChoice([1, 2, 3], "heads")
        self.project = nn.ModuleList(nn.Linear(self.width, self.heads * head_width) for _ in range(3))
        self.out = nn.Linear(self.heads * head_width, self.width)

    def forward(self, x, causal=False):
        x = x[..., : self.width]
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in self.project)
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_a_users_own_is_that_of_its_sizes(causal):
    x = torch.rand(COLUMNS, LENGTH, max(WIDTHS))
    for network, gates, plain in both(OwnAttention):
        assert plain.out.in_features == 4 * plain.heads
        ours, theirs = network(x, gates, causal=causal), plain(x, causal)
        assert torch.equal(ours, theirs)
        own = gradients(network.net, ours, plain.state_dict())
        for name, gradient in gradients(plain, theirs, plain.state_dict()).items():
            assert torch.equal(own[name][tuple(map(slice, gradient.shape))], gradient), name


class TwoAttentions(nn.Module):
    def __init__(self):
        super().__init__()
        self.choice = LayerChoice([nn.MultiheadAttention(8, heads, batch_first=True) for heads in (2, 4)], "heads")

    def forward(self, x, **settings):
        return self.choice(x, x, x, **settings)


@pytest.mark.parametrize("need_weights", [False, True])
def test_attentions_are_mixed_with_and_without_what_they_attend_to(need_weights):
    network, x = Space.of(TwoAttentions).network({}), torch.rand(2, 5, 8)
    mixed = network(x, {"heads": torch.tensor([0.25, 0.75])}, need_weights=need_weights)
    few, many = (network(x, {"heads": option}, need_weights=need_weights) for option in (0, 1))
    torch.testing.assert_close(mixed[0], 0.25 * few[0] + 0.75 * many[0])
    if need_weights:
        torch.testing.assert_close(mixed[1], 0.25 * few[1] + 0.75 * many[1])
    else:
        assert mixed[1] is None
