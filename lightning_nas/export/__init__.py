"""A network as a file that runs without this package: ONNX, or a program of ``torch.export``."""

from lightning_nas.export.network import Exported, export_network

__all__ = ["Exported", "export_network"]
