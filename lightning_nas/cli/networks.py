"""The network that a command is about: of an architecture and settings that were typed, or of a checkpoint."""

import inspect
from typing import Any, TypeVar

import torch
from torch import nn

from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import batch_norms, evaluating
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.architecture_file import ArchitectureRecord, load_architecture
from lightning_nas.spaces.base import Network
from lightning_nas.specs import check_arguments

Module = TypeVar("Module", bound=nn.Module)


def final_network(found: ArchitectureRecord, network: dict[str, Any] | None, inputs: dict[str, int] | None) -> Network:
    """The final network of an architecture, with new weights, the same every time.

    Args:
        found: the architecture, with the space that it is from.
        network: settings of the space's network, by name.
        inputs: what the data are like; what is missing is as usual for the space.

    Raises:
        SettingError: naming the flag that is wrong.
    """
    usual = found.space.usual_inputs
    accepted = [*usual, "dense"] if found.space.modality == "images" else [*usual]
    for name, number in (inputs or {}).items():
        if name not in accepted:
            raise SettingError(f"--inputs.{name}: no such setting; there are {', '.join(accepted)}")
        if number < 1:
            raise SettingError(f"--inputs.{name}: at least 1, got {number}")
    settings = check_arguments(found.space.network, network or {}, "--network", skip={"inputs", "form"})
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derive_seed(0, "network"))
        return found.network({**usual, **(inputs or {})}, **settings)


def settings_of(network: Network) -> str:
    """The settings that a network was built with, in a line; empty where it has none."""
    defaults = inspect.signature(network.space.network).parameters
    shown = {n: network.settings.get(n, p.default) for n, p in defaults.items() if n not in ("inputs", "form")}
    return "network: " + ", ".join(f"{name} {value}" for name, value in shown.items()) if shown else ""


def moved(module: Module, device: str) -> Module:
    """The module on a device.

    Raises:
        SettingError: if there is no such device here.
    """
    try:
        return module.to(torch.device(device))
    except (RuntimeError, AssertionError, ImportError) as error:
        raise SettingError(f"--device: {device}: {str(error).splitlines()[0]}") from error


def network_to_export(
    architecture: str | None,
    ckpt_path: str | None,
    network: dict[str, Any] | None,
    inputs: dict[str, int] | None,
    calibration: int,
) -> tuple[ArchitectureRecord, Network, str]:
    """The architecture and the network that ``export`` writes, and a line or two on its weights.

    Args:
        architecture: an architecture.json or the name of a published architecture; None: that of the checkpoint.
        ckpt_path: the checkpoint of a retraining or of a search; None: new weights.
        network: settings of the network, where it is new.
        inputs: what the data are like, where the network is new.
        calibration: training batches for the BatchNorms of an architecture of a search.

    Raises:
        SettingError: naming the flag that is wrong, or missing, or contradicts another.
    """
    if calibration < 0:
        raise SettingError(f"--calibration: 0 or more, got {calibration}")
    found = None if architecture is None else load_architecture(architecture)
    if ckpt_path is None:
        if found is None:
            raise SettingError("architecture: missing; an architecture.json, a published name, or else --ckpt_path")
        child = final_network(found, network, inputs)
        return found, child, f"weights: new ones{scale(child)}"
    for flag, value in {"network": network, "inputs": inputs}.items():
        if value:
            raise SettingError(f"--{flag}: of new networks alone; the one of {ckpt_path} stays as it was trained")
    return _trained(found, ckpt_path, calibration)


def scale(network: Network) -> str:
    """Gives new BatchNorms the scale of random images as their variance, and says so in a few words.

    With the averages that they begin with, activations fade until outputs are the same for all inputs; with averages of
    their own over random images, the outputs of many layers hang on the last bits of what is rounded. A mean square for
    each layer, and no mean, keeps both off, as an initialisation after He et al. (2015) does.
    """
    from lightning_nas.export.interface import interface_of

    def measure(norm: Any, read: tuple[torch.Tensor, ...]) -> None:
        norm.running_var.fill_(read[0].square().mean())

    norms = batch_norms(network)
    if not norms:
        return ""
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    interface = interface_of(network, None)
    with evaluating(network), torch.no_grad():
        interface.run(interface.drawn(batch=8))
    for hook in hooks:
        hook.remove()
    return ", with BatchNorm's scale that of random images"


def _trained(found: ArchitectureRecord | None, path: str, calibration: int) -> tuple[ArchitectureRecord, Network, str]:
    from lightning_nas.training.checkpoints import trained_module
    from lightning_nas.training.inheritance import check_source

    source: Any = trained_module(path, "ckpt_path")
    if found is not None:
        check_source(source, path, found, "ckpt_path")
    if source.job == "retrain":
        return source.found, source.network, f"weights: those of the retraining {path}"
    if found is None:
        raise SettingError(f"architecture: missing; {path} is of a search, which has weights for all, so name one")
    child = found.space.restrict(found.architecture).network(source.network.inputs, **source.network.settings)
    child.load_state_dict(source.network.child_state(found.architecture))
    line = f"weights: those that the architecture shares in the search {path}"
    if not batch_norms(child):
        return found, child, line
    if not calibration:
        return found, child, f"{line}; BatchNorm's averages are those of all its architectures together"
    _calibrate(child, path, found, calibration)
    return found, child, f"{line}; BatchNorm's averages are its own over {calibration} training batches"


def _calibrate(child: Network, path: str, found: ArchitectureRecord, n_batches: int) -> None:
    """Gives a child of a search's network BatchNorm's averages over training batches of the search's data."""
    from lightning_nas.methods import load_search
    from lightning_nas.supernets.scoring import Scorer

    loaded, data = load_search(path)
    search: Any = loaded
    stream = search.stream(data, "weights")
    batches = [stream.get(index) for index in range(min(n_batches, len(stream)))]
    scorer = Scorer(search.space, search.network, search.task, [], batches, modules=search.task_modules)
    with scorer.normalising(found.architecture):
        child.load_state_dict(search.network.child_state(found.architecture))
