"""What a strategy had learnt, beside the log: so that a long search is opened without telling it all trials again.

A snapshot says nothing that the log does not. One that does not fit the log is left aside, and its trials are told.
"""

import dataclasses
import io
from pathlib import Path
from typing import Any, Self

import torch

from lightning_nas.files import write_whole
from lightning_nas.strategies.base import Proposal, Strategy
from lightning_nas.trials.log import TrialLog

EVERY = 100
"""Trials told between two snapshots."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A strategy at a moment at which all trials on file had been told.

    Attributes:
        n_told: how many trials were on file.
        digest: what distinguishes these lines from any others.
        n_asked: the number of the next trial.
        running: the trials that had been asked for and had not ended, by number: what was proposed, and how many were
            told before.
        strategy: what the strategy had learnt.
    """

    n_told: int
    digest: str
    n_asked: int
    running: dict[int, tuple[Proposal, int]]
    strategy: dict[str, Any]

    def save(self, log: Path) -> None:
        """Writes it beside a log; it is there whole or not at all."""
        from lightning_nas import __version__

        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        running = [
            [number, list(proposal.architecture), *proposal[1:], told]
            for number, (proposal, told) in self.running.items()
        ]
        file = io.BytesIO()
        torch.save(content | {"running": running, "version": __version__}, file)
        write_whole(_beside(log), file.getvalue())

    @classmethod
    def load(cls, log: TrialLog, strategy: Strategy) -> Self | None:
        """The snapshot beside the log that was read, restored in a strategy that has begun; None: there is none that
        fits, and the strategy is as it was or has to begin again."""
        from lightning_nas import __version__

        try:
            content = torch.load(_beside(log.source), weights_only=True, map_location="cpu")
            if content.pop("version") != __version__ or log.digest_of(content["n_told"]) != content["digest"]:
                return None
            content["running"] = {
                number: (Proposal(tuple(architecture), *rest), told)
                for number, architecture, *rest, told in content["running"]
            }
            snapshot = cls(**content)
            strategy.restore(snapshot.strategy)
            return snapshot
        except Exception:  # whatever a damaged or foreign file raises
            strategy.begin(strategy.space, strategy.seed)
            return None


def _beside(log: Path) -> Path:
    return log.with_name("strategy.ckpt")
