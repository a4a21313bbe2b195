"""A network on an accelerator is exported by a copy on the CPU, and stays where it is."""

import pytest
import torch

from lightning_nas import export_network, load_architecture

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_the_file_has_the_weights_and_runs_on_a_cpu(suffix, device, tmp_path):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="needs the extra export")
    found = load_architecture("darts_v2")
    network = found.network({"channels": 3, "image_size": 16, "num_classes": 4}, channels=4, cells=3).to(device)
    before = {name: (value, value.clone(), value.stride()) for name, value in network.state_dict().items()}
    exported = export_network(network, tmp_path / f"network{suffix}")
    assert exported.relative < 1e-5
    assert network.training
    for name, value in network.state_dict().items():
        same, was, stride = before[name]
        assert value.device.type == device.type
        assert value.data_ptr() == same.data_ptr()
        assert torch.equal(value, was)
        assert value.stride() == stride
    if suffix == ".pt2":
        weights = torch.export.load(exported.path).state_dict.values()
        assert weights
        assert {weight.device.type for weight in weights} == {"cpu"}
