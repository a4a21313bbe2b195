"""What is trained, before it is."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary

from lightning_nas.costs.profile import profile
from lightning_nas.training.module import NetworkModule


class Summary(ModelSummary):
    """Prints the parts with parameters, and what one example costs.

    Lightning's own summary calls the module on an example to count FLOPs, which a search cannot offer: what its network
    costs depends on the architecture.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        rows = [
            (name, type(module).__name__, sum(parameter.numel() for parameter in module.parameters()))
            for name, module in pl_module.named_children()
        ]
        rows += [(name, "Parameter", value.numel()) for name, value in pl_module.named_parameters(recurse=False)]
        print()
        for name, kind, count in rows:
            if count:
                print(f"{name:12} {kind}, {count:,} parameters")
        if isinstance(pl_module, NetworkModule) and pl_module.form == "final":
            costs = profile(pl_module.network, pl_module.network.example().to(pl_module.device))
            print(f"{'costs':12} {costs.flops:,} FLOPs per example")
        print()
