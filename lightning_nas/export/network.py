"""A network as a file, which is run beside the network before it is kept."""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from lightning_nas.errors import SettingError
from lightning_nas.export.comparison import BATCHES, differences, latencies
from lightning_nas.export.formats import Format, Loaded, Port, format_of, quietly
from lightning_nas.export.interface import Example, Interface, interface_of
from lightning_nas.files import whole
from lightning_nas.operations.normalization import evaluating
from lightning_nas.spaces.base import Network

_TRACED = {"batch": 3, "time": 5}
"""Open sizes while a network is traced: different ones, which are not taken for one, and no 1, which stays 1."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file that was written, and how it compares with the network.

    Attributes:
        path: the file that was written.
        size: the file's size in bytes.
        opset: the version of ONNX's operators; None: the file is a program of ``torch.export``.
        inputs: what the file reads, in the order of a call.
        outputs: what the file puts out, in order.
        difference: the largest difference between an output of the file and the network's.
        relative: the same as a part of the largest value of that output.
        runs_in: what ran the file.
        latency: median milliseconds of a batch in the file; None: not measured.
        network_latency: median milliseconds of a batch in the network; None: not measured.
        latency_batch_size: examples in that batch, of text its columns; None: not measured.
    """

    path: Path
    size: int
    opset: int | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    difference: float
    relative: float
    runs_in: str
    latency: float | None = None
    network_latency: float | None = None
    latency_batch_size: int | None = None

    def describe(self) -> str:
        """What is known of the file for people, in a few lines."""
        *first, last = BATCHES
        batches = f"{', '.join(map(str, first))} and {last}"
        opset = "" if self.opset is None else f", opset {self.opset}"
        rows = [("file", f"{self.path}, {self.size / 1e6:,.2f} MB{opset}")]
        rows += [("input", port.describe()) for port in self.inputs]
        rows += [("output", port.describe()) for port in self.outputs]
        difference = f"{self.difference:.1e}, of the largest output {self.relative:.1e}"
        rows.append(("difference", f"{difference}, in random batches of {batches}"))
        if self.latency is not None:
            both = f"{self.runs_in} {self.latency:,.3f} ms, the network {self.network_latency:,.3f} ms"
            rows.append(("latency", f"{both}, per batch of {self.latency_batch_size}, cpu"))
        return "\n".join(f"{name:10}  {text}" for name, text in rows)


def export_network(
    network: nn.Module,
    path: str | Path,
    example: Example | None = None,
    opset: int | None = None,
    latency_runs: int = 0,
    batch_size: int = 1,
) -> Exported:
    """Writes a network with its weights to a file that runs without this package, and runs it beside the network.

    The ending says the format: ``.onnx`` (needs the extra ``export``), or ``.pt2``, a program of ``torch.export``. The
    file computes what the network does in evaluation mode, for batches of any size. A network of images reads
    ``images`` and puts out ``logits``, for dense inputs those of every pixel, without a classifier ``features``. One of
    text reads ``tokens`` ``(T, N)``, any number of words, and a ``carry``, zeros where a text begins, and puts out
    ``logits`` and ``next_carry``. The inputs of any other module are called as the arguments of its ``forward``, its
    outputs as in the dictionary or named tuple that it returns, else ``output``.

    File and network are compared on random inputs in batches of 1, 2 and 7, on the CPU. Where they differ by more than
    1e-4 of an output's largest value, there is no file. The network is left as it was.

    Args:
        network: a network in which one architecture is left, or any module, on any device.
        path: the file that is written, whole or not at all; it ends in ``.onnx`` or ``.pt2``.
        example: what a module is called with, its first dimension the batch: a tensor, several, or tensors by the names
            of arguments; of a network of text words ``(T, N)``. None: what a network of this package was built for.
        opset: the version of ONNX's operators, 18 or more; None: the one that torch prefers.
        latency_runs: timed passes of file and network in turns, of which the medians count; 0: latency is not measured.
        batch_size: the number of examples in a pass whose latency is measured.

    Raises:
        SettingError: if an argument is wrong, the network cannot be traced or written, or the file computes something
            else; then nothing is left behind.
    """
    path = Path(path)
    form = format_of(path, opset)
    if batch_size < 1 or latency_runs < 0:
        raise SettingError(f"batch_size: at least 1; latency_runs: 0 or more; got {batch_size} and {latency_runs}")
    if isinstance(network, Network) and network.space.size != 1:
        there = f"{network.space.size:,} architectures to choose from"
        raise SettingError(f"network: it has {there}; export that of one, space.restrict(architecture).network(…)")
    with whole(path) as partial, _refusing(path.suffix), _on_cpu(network) as on_cpu, torch.no_grad():
        partial.touch()  # a folder that is closed is found out before the work
        interface = interface_of(on_cpu, example)
        loaded = _written(form, interface, partial, opset)
        difference, relative = differences(interface, loaded)
        times = (*latencies(interface, loaded, batch_size, latency_runs), batch_size) if latency_runs else ()
        size = partial.stat().st_size
    found = (loaded.opset, loaded.inputs, loaded.outputs, difference, relative, form.runs_in)
    return Exported(path, size, *found, *times)


@contextlib.contextmanager
def _on_cpu(network: nn.Module) -> Iterator[nn.Module]:
    """The network in evaluation mode, as it is or a copy of it; afterwards in the mode that it was in."""
    elsewhere = any(value.device.type != "cpu" for value in (*network.parameters(), *network.buffers()))
    with evaluating(network):
        yield copy.deepcopy(network).cpu() if elsewhere else network


@contextlib.contextmanager
def _refusing(suffix: str) -> Iterator[None]:
    """Turns whatever torch and onnxruntime raise inside, for what they do not know, into the refusal of the network."""
    try:
        yield
    except (SettingError, OSError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SettingError(f"network: it cannot be written as {suffix} ({reason[:300]})") from error


def _written(form: Format, interface: Interface, path: Path, opset: int | None) -> Loaded:
    """The file, as it is read from the disk."""
    with quietly():
        outputs = list(interface.run(interface.drawn(**_TRACED)))
        path.write_bytes(form.content(_traced(interface), interface, outputs, opset))
        return form.load(path, interface, outputs)


def _traced(interface: Interface) -> ExportedProgram:
    """The interface as one graph in which open sizes are open."""
    dims = {name: Dim(name) for name in {name for each in interface.inputs for name in each.open.values()}}
    given = interface.drawn(**_TRACED)
    args, kwargs = ((), given) if interface.by_name else (tuple(given.values()), {})
    shapes = {each.name: {d: dims[name] for d, name in each.open.items()} for each in interface.inputs}
    dynamic = shapes if interface.by_name else tuple(shapes.values())
    program = torch.export.export(interface.module, args, kwargs, dynamic_shapes=dynamic, strict=False)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # lines of source and paths of this machine, up to half of a small file
    return program
