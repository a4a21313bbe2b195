"""Optimisers of methods, said by short names where a test changes one of their settings."""

from lightning_nas.methods import DARTS, ENAS, GDAS, PDARTS, SNAS, SPOS, RandomSearchWS
from lightning_nas.training import SGD, Adam, Cosine, CosineRestarts, Linear, Retrain

WEIGHTS = {
    DARTS: {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4, "schedule": Cosine(0.001), "clip": 5.0},
    PDARTS: {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4, "schedule": Cosine(), "clip": 5.0},
    SNAS: {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4, "schedule": Cosine(0.001), "clip": 5.0},
    GDAS: {
        "lr": 0.025,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "schedule": Cosine(0.001),
        "clip": 5.0,
    },
    SPOS: {"lr": 0.5, "momentum": 0.9, "weight_decay": 4e-5, "schedule": Linear(), "decay_vectors": False},
    RandomSearchWS: {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4, "schedule": Cosine(0.001), "clip": 5.0},
    ENAS: {
        "lr": 0.05,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
        "schedule": CosineRestarts(0.0005),
        "clip": 5.0,
    },
    Retrain: {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4, "schedule": Cosine()},
}
"""What each class trains its weights by if nothing is said."""

OTHERS = {
    "alphas": {"lr": 3e-4, "betas": (0.5, 0.999), "weight_decay": 1e-3},
    "controller": {"lr": 0.0035, "betas": (0.0, 0.999), "eps": 1e-3},
}
"""The same for alphas and controllers."""

SHORT = {"lr_schedule": "schedule", "gradient_clip": "clip"} | {
    name: name for name in ("lr", "momentum", "nesterov", "weight_decay")
}


def sgd(cls, **changes):
    """The optimiser of a class's weights with some settings changed."""
    settings = WEIGHTS[cls] | changes
    if not settings["momentum"]:
        settings.pop("nesterov", None)
    return SGD(**settings)


def objects(cls, settings):
    """Settings of a class in which short names (``lr``, ``gradient_clip``, ``alphas_lr``) have become optimisers."""
    settings = dict(settings)
    changes = {long: settings.pop(short) for short, long in SHORT.items() if short in settings}
    if changes:
        settings["optimizer"] = sgd(cls, **changes)
    for owner, usual in OTHERS.items():
        names = [name for name in settings if name.startswith(f"{owner}_") and name != f"{owner}_optimizer"]
        changes = {
            name.removeprefix(f"{owner}_"): settings.pop(name)
            for name in names
            if name.removeprefix(f"{owner}_") in ("lr", "betas", "eps", "weight_decay", "clip")
        }
        if changes:
            settings[f"{owner}_optimizer"] = Adam(**(usual | changes))
    return settings
