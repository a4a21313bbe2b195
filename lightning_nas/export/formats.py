"""The two kinds of files: how a traced network is written, and how the file is run."""

import contextlib
import dataclasses
import importlib
import io
import logging
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from lightning_nas.errors import SettingError
from lightning_nas.export.interface import Interface, Tensors

LEAST_OPSET = 18
"""The opset in which torch writes; older ones it would have to convert to, and cannot where it pads."""


_ONNX_TYPES = {"float": "float32", "double": "float64"}


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or an output of a file.

    Attributes:
        name: what it is called in the file.
        shape: the size of every dimension; the name of one that stays open.
        dtype: the type of its values, such as ``float32``.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def describe(self) -> str:
        """Name, shape and type in a line."""
        return f"{self.name}: {' × '.join(map(str, self.shape))}, {self.dtype}"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A file as it is found on the disk.

    Attributes:
        run: the outputs by name, from inputs by name.
        inputs: what it reads, in the order of a call.
        outputs: what it puts out, in order.
        opset: the version of ONNX's operators; None: the file is not ONNX.
    """

    run: Callable[[Tensors], Tensors]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int | None = None


class Format(ABC):
    """A kind of file."""

    runs_in: str
    """What runs it."""

    @abstractmethod
    def check(self, path: Path, opset: int | None) -> None:
        """Refuses what cannot be written, before anything is computed."""

    @abstractmethod
    def content(self, program: ExportedProgram, interface: Interface, outputs: list[str], opset: int | None) -> bytes:
        """The whole file."""

    @abstractmethod
    def load(self, path: Path, interface: Interface, outputs: list[str]) -> Loaded:
        """Reads a file and makes ready to run it, with as many threads as torch has."""


class Onnx(Format):
    """ONNX, which onnxruntime runs."""

    runs_in = "onnxruntime"

    def check(self, path: Path, opset: int | None) -> None:
        for needed in ("onnx", "onnxscript", "onnxruntime"):
            try:
                importlib.import_module(needed)
            except ImportError as error:
                raise SettingError(
                    f"{path}: this needs {needed}, which is not installed; pip install 'lightning_nas[export]'"
                ) from error
        from onnx.defs import onnx_opset_version

        if opset is not None and not LEAST_OPSET <= opset <= onnx_opset_version():
            raise SettingError(f"opset: from {LEAST_OPSET} to {onnx_opset_version()}, got {opset}")

    def content(self, program: ExportedProgram, interface: Interface, outputs: list[str], opset: int | None) -> bytes:
        written = torch.onnx.export(
            program,
            kwargs={},
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=[each.name for each in interface.inputs],
            output_names=outputs,
            dynamic_shapes={each.name: dict(each.open) for each in interface.inputs},  # names of open sizes
        )
        assert written is not None
        model = written.model_proto
        for graph in (model.graph, *model.functions):
            for part in (graph, *graph.node, *graph.value_info, *getattr(graph, "initializer", ())):
                del part.metadata_props[:]  # how torch came by it, an eighth of the file
        return model.SerializeToString()

    def load(self, path: Path, interface: Interface, outputs: list[str]) -> Loaded:
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def ports(found: Iterable[Any]) -> tuple[Port, ...]:
            kinds = [each.type.removeprefix("tensor(").removesuffix(")") for each in found]
            return tuple(
                Port(each.name, tuple(each.shape), _ONNX_TYPES.get(kind, kind))
                for each, kind in zip(found, kinds, strict=True)
            )

        def run(given: Tensors) -> Tensors:
            values = session.run(outputs, {name: value.numpy() for name, value in given.items()})
            return {name: torch.from_numpy(value) for name, value in zip(outputs, values, strict=True)}

        opsets = {each.domain: each.version for each in onnx.load(path).opset_import}
        return Loaded(run, ports(session.get_inputs()), ports(session.get_outputs()), opsets[""])


class Program(Format):
    """A program of ``torch.export``, which PyTorch runs alone: ``torch.export.load(path).module()(images)``."""

    runs_in = "torch.export"

    def check(self, path: Path, opset: int | None) -> None:
        if opset is not None:
            raise SettingError(f"opset: .onnx files alone have one, and this is .pt2; leave it out, got {opset}")

    def content(self, program: ExportedProgram, interface: Interface, outputs: list[str], opset: int | None) -> bytes:
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        return buffer.getvalue()

    def load(self, path: Path, interface: Interface, outputs: list[str]) -> Loaded:
        program = torch.export.load(io.BytesIO(path.read_bytes()))
        module = program.module()

        nodes = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
        read = {name: nodes[name] for name in program.graph_signature.user_inputs}
        made = [nodes[name] for name in program.graph_signature.user_outputs]
        # the program calls open sizes s77 and so on
        names = {str(read[each.name].shape[d]): name for each in interface.inputs for d, name in each.open.items()}

        def port(name: str, value: Tensor) -> Port:
            shape = [size if isinstance(size, int) else _renamed(str(size), names) for size in value.shape]
            return Port(name, tuple(shape), str(value.dtype).removeprefix("torch."))

        return Loaded(
            partial(interface.call, module), tuple(map(port, read, read.values())), tuple(map(port, outputs, made))
        )


FORMATS: dict[str, Format] = {".onnx": Onnx(), ".pt2": Program()}
"""The kinds of files by their endings."""


def format_of(path: Path, opset: int | None) -> Format:
    """The format that a file's ending says.

    Raises:
        SettingError: if there is none of that ending, or it cannot be written here, or not with that opset.
    """
    if path.suffix not in FORMATS:
        raise SettingError(f"{path}: a file that ends in {' or '.join(FORMATS)} can be written")
    if path.is_dir():
        raise SettingError(f"{path}: it is a folder; name a file")
    FORMATS[path.suffix].check(path, opset)
    return FORMATS[path.suffix]


def _renamed(expression: str, names: Mapping[str, str]) -> str:
    """An open size with the names of the interface, also in expressions such as ``4*batch``."""
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), expression)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Inside, torch and onnxscript say nothing of how they go about it; what is wrong is raised anyway."""
    last = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(last)
