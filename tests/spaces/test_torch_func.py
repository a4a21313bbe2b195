"""``torch.func`` on final networks: per-example gradients, ensembles and directional derivatives, each as it would be
computed one by one."""

import copy
from random import Random

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, replace_all_batch_norm_modules_, stack_module_state, vmap

from lightning_nas.testing.space import SpaceCase, randomise
from tests.spaces.test_contracts import CASES

FUNCTIONAL = {
    name: case
    for name, case in CASES.items()
    if "final" in case.forms and not name.endswith(("restricted", "drop-path"))
}
every_space = pytest.mark.parametrize("case", FUNCTIONAL.values(), ids=FUNCTIONAL)


def child(case: SpaceCase, seed: int = 0) -> nn.Module:
    """A final network in evaluation mode with random weights and statistics."""
    torch.manual_seed(0)
    network = case.network("final", case.space.restrict(case.space.random(Random(seed)))).eval()
    randomise(network)
    return network


def first(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The logits, whatever else a network returns."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def batch(case: SpaceCase) -> tuple[Tensor, int]:
    """Examples, and along which dimension they follow each other: the second of a text's ``(T, N)``."""
    return case.batch(), 1 if "vocabulary" in case.inputs else 0


@every_space
def test_gradients_of_each_example_are_those_taken_one_by_one(case: SpaceCase) -> None:
    network = child(case)
    examples, dim = batch(case)
    # contiguous: torch's kernel for a 7×1 convolution in float64 takes no gradient of a single image otherwise
    parameters = {name: p.detach().contiguous() for name, p in network.named_parameters()}
    buffers = dict(network.named_buffers())

    def loss(parameters: dict[str, Tensor], example: Tensor) -> Tensor:
        logits = first(functional_call(network, (parameters, buffers), (example.unsqueeze(dim),)))
        return logits.square().mean()

    together = vmap(grad(loss), in_dims=(None, dim))(parameters, examples)
    for k, example in enumerate(examples.unbind(dim)):
        network.zero_grad()
        first(network(example.unsqueeze(dim))).square().mean().backward()
        for name, parameter in network.named_parameters():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            scale = max(1.0, expected.abs().max().item())
            torch.testing.assert_close(together[name][k], expected, rtol=0, atol=1e-11 * scale)
    assert any(gradient.any() for gradient in together.values())


@every_space
def test_an_ensemble_is_one_call(case: SpaceCase) -> None:
    members = [child(case)]
    members.append(copy.deepcopy(members[0]))
    with torch.no_grad():
        for parameter in members[1].parameters():
            parameter.mul_(0.9)
    parameters, buffers = stack_module_state(members)
    examples, _ = batch(case)
    skeleton = copy.deepcopy(members[0]).to("meta")

    def outputs(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return first(functional_call(skeleton, (parameters, buffers), (examples,)))

    together = vmap(outputs)(parameters, buffers)
    for member, output in zip(members, together, strict=True):
        torch.testing.assert_close(output, first(member(examples)), rtol=1e-10, atol=1e-11)
    assert not torch.equal(*together)


@every_space
def test_directional_derivatives(case: SpaceCase) -> None:
    """Along a direction of the weights, against the gradient."""
    network = child(case)
    examples, _ = batch(case)
    buffers = dict(network.named_buffers())
    generator = torch.Generator().manual_seed(1)
    at = {name: p.detach() for name, p in network.named_parameters()}
    along = {name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in at.items()}

    def outputs(parameters: dict[str, Tensor]) -> Tensor:
        return first(functional_call(network, (parameters, buffers), (examples,))).sum()

    _, derivative = jvp(outputs, (at,), (along,))
    names, values = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(outputs(dict(zip(names, values, strict=True))), values, allow_unused=True)
    expected = sum((g * along[name]).sum() for name, g in zip(names, gradients, strict=True) if g is not None)
    torch.testing.assert_close(derivative, expected, rtol=1e-9, atol=1e-9)


def test_training_under_vmap_needs_batch_norms_without_running_statistics() -> None:
    """``vmap`` cannot update buffers that all examples share; torch says so and has the remedy."""
    case = FUNCTIONAL["darts"]
    network = child(case).train()
    parameters = {name: p.detach() for name, p in network.named_parameters()}

    def loss(parameters: dict[str, Tensor], example: Tensor) -> Tensor:
        pair = torch.stack([example, example.flip(1)])
        return functional_call(network, parameters, (pair,)).square().mean()

    with pytest.raises(RuntimeError, match=r"in-place|inplace"):
        vmap(grad(loss), in_dims=(None, 0))(parameters, case.batch())
    replace_all_batch_norm_modules_(network)
    together = vmap(grad(loss), in_dims=(None, 0))(parameters, case.batch())
    alone = grad(loss)(parameters, case.batch()[1])
    for name, gradient in alone.items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(together[name][1], gradient, rtol=0, atol=1e-10 * scale)
