"""Policies over architectures: a sequence model takes the choices of a space one after the other."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lightning_nas.controllers.steps import State, automaton, columns, is_pointing, padded, plan_steps
from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.specs import Configurable


class Controller(Configurable):
    """How a policy is made, for whatever space; :meth:`policy` makes it.

    A logit is ``C tanh(x / T) + log(n)``: x is what the network says, n the number of legal architectures that continue
    with the option. So an illegal option has probability 0, no prefix ends dead, and while x is 0 all architectures are
    equally likely. Output layers start at zero, all other weights between -0.1 and 0.1.

    Differs from ENAS (Pham, Guan, Zoph, Le, Dean, ICML 2018) and its released code:
    1. The prior log(n), and output layers that start at zero: an untrained policy is uniform over architectures.
    2. Entropies are those of the whole distribution; the code takes the drawn option's term alone.
    3. The divergence of skips is that of the probability which is drawn from (see :class:`Sample`).
    4. One rule for the anchors of all spaces, the one that the released code has for cells; it takes the anchors of
       recurrent cells from the step of the predecessor, with weights for the distance, and has none for the stem.

    Args:
        temperature: T; None: 1. Paper 5; released code 5 for recurrent cells, else None.
        tanh_constant: C; None: x itself is the logit. Paper 2.5; released code 2.5 for recurrent cells, 1.5 for
            macro networks, 1.1 for cells.
        operation_tanh_reduce: C is divided by it for operations (released code: 2.5 for cells).
        operation_bias: a bias of operations, learnt from these values on, by the operation's name; 0 where one has none
            (released code: 10 for the two convolutions of cells). With it an untrained policy is not uniform.
        skip_target: the share of skips that a regulariser pulls towards.
    """

    width: int
    """The width of the hidden state."""

    usual_lr: ClassVar[float] = 0.01
    """The rate of Adam at which these policies learn well from single trials."""

    def __init__(
        self,
        temperature: float | None = 5.0,
        tanh_constant: float | None = 2.5,
        operation_tanh_reduce: float = 1.0,
        operation_bias: dict[str, float] | None = None,
        skip_target: float = 0.4,
    ) -> None:
        for name, value in (("temperature", temperature), ("tanh_constant", tanh_constant)):
            if value is not None and value <= 0:
                raise SettingError(f"{name}: above 0 or null, got {value}")
        if operation_tanh_reduce <= 0 or (tanh_constant is None and operation_tanh_reduce != 1):
            raise SettingError(
                f"operation_tanh_reduce: above 0, and 1 without tanh_constant, got {operation_tanh_reduce}"
            )
        if not 0 < skip_target < 1:
            raise SettingError(f"skip_target: between 0 and 1, got {skip_target}")
        self.temperature, self.tanh_constant = temperature, tanh_constant
        self.operation_tanh_reduce = operation_tanh_reduce
        self.operation_bias = operation_bias
        self.skip_target = skip_target

    def policy(self, space: Space, seed: int = 0) -> "Policy":
        """An untrained policy over the architectures of ``space``; its weights are drawn from ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(derive_seed(seed, "controller"))
            return Policy(space, self)

    def sequence(self, steps: int) -> nn.Module:
        """The sequence model for at most ``steps`` steps.

        Its ``forward(x, memory=None)`` takes one step: from an input ``(n, width)`` and the memory of the steps before
        it (None at the first) to the hidden state ``(n, width)`` and the memory after it.
        """
        raise NotImplementedError

    def bounded(self, x: Tensor, kind: str) -> Tensor:
        """``C tanh(x / T)``, an odd function."""
        if self.temperature is not None:
            x = x / self.temperature
        if self.tanh_constant is None:
            return x
        return self.tanh_constant / (self.operation_tanh_reduce if kind == "operation" else 1) * x.tanh()


@dataclasses.dataclass(frozen=True)
class Sample:
    """Architectures and what a policy says about them.

    Attributes:
        architectures: ``(n, n_choices)``, the options' indices.
        step_log_probs: ``(n, n_choices)``, the log-probability of each option given those before it.
        entropies: ``(n, n_choices)``, in nats: of the distribution that each option was taken from.
        hidden: ``(n, steps, width)``; the column of a choice is in :attr:`Policy.step_of`.
        skip_kl: ``(n,)``, the mean over groups of skips of the divergence KL(p, ``skip_target``), summed over the skips
            of the group that are free. p is the probability that a skip is drawn from.
    """

    architectures: Tensor
    step_log_probs: Tensor
    entropies: Tensor
    hidden: Tensor
    skip_kl: Tensor

    @property
    def log_prob(self) -> Tensor:
        """``(n,)``, of the architectures."""
        return self.step_log_probs.sum(1)

    def tuples(self) -> list[Architecture]:
        """The architectures as the rest of the library has them."""
        return [tuple(row) for row in self.architectures.tolist()]


class Anchor(NamedTuple):
    """What is read when a state was pointed at, and the keys by which pointers find it; each ``(n, width)``."""

    value: Tensor
    keys: dict[str, Tensor]


Decide = Callable[[int, Tensor], Tensor]
"""From a choice's index and the logits ``(n, n_options)`` to the options that are taken, ``(n,)``."""


class Policy(nn.Module):
    """A distribution over the architectures of a space, from which any number is drawn in one pass.

    Args:
        space: whose architectures; the weights fit no other space.
        controller: the settings by which the policy is made.

    Attributes:
        steps: runs of the sequence model; see :mod:`lightning_nas.controllers.steps`.
        step_of: for each choice the step that decides it.
    """

    prior: Tensor
    next: Tensor
    columns: Tensor
    log_target: Tensor

    def __init__(self, space: Space, controller: Controller) -> None:
        super().__init__()
        self.choices = space.choices
        self.controller = controller
        self.steps = plan_steps(space.choices)
        self.step_of = {k: index for index, step in enumerate(self.steps) for k in step.choices}

        shared = list(dict.fromkeys((c.kind, c.options) for c in space.choices if not is_pointing(c)))
        self.heads = nn.ModuleList(Head(controller, kind, options) for kind, options in shared)
        self.head_of = {k: shared.index((c.kind, c.options)) for k, c in enumerate(space.choices) if not is_pointing(c)}
        pointing = dict.fromkeys(c.kind for c in space.choices if is_pointing(c))
        self.pointers = nn.ModuleDict({kind: Pointer(controller.width) for kind in pointing})
        self.start = nn.Parameter(torch.empty(controller.width))
        self.sequence = controller.sequence(len(self.steps))
        self._initialize()

        self._compile(space)

    def _compile(self, space: Space) -> None:
        """The tables of the walk, from those of the space."""
        widest = max(len(choice.options) for choice in space.choices)
        self.skips = [k for k, choice in enumerate(space.choices) if choice.kind == "skip" and is_pointing(choice)]
        self.n_skip_groups = len({space.choices[k].group or k for k in self.skips})
        skip_target = self.controller.skip_target
        target = {"off": math.log(1 - skip_target), "on": math.log(skip_target)}
        log_target = [padded((target[o] for o in space.choices[k].options), widest, 0.0) for k in self.skips]
        tables = {"columns": columns(space.choices, widest), "log_target": torch.tensor(log_target).view(-1, widest)}
        for name, table in (automaton(space.tables, widest) | tables).items():
            self.register_buffer(name, table, persistent=False)  # a checkpoint has the space

    def _initialize(self) -> None:
        for module in self.modules():
            if not isinstance(module, nn.LayerNorm):
                for parameter in module.parameters(recurse=False):
                    nn.init.uniform_(parameter, -0.1, 0.1)
        for scores in (*self.heads, *self.pointers.values()):
            nn.init.zeros_(scores.output.weight)
        given = self.controller.operation_bias or {}
        operations = [name for c in self.choices if c.kind == "operation" for name in c.options]
        for name in given:
            if name not in operations:
                known = ", ".join(dict.fromkeys(operations))
                raise SettingError(f"operation_bias: no operation {name!r}; there are {known}")
        heads: Any = self.heads
        for head in heads:
            if head.output.bias is not None:
                head.output.bias.data = torch.tensor([float(given.get(option, 0)) for option in head.options])

    # -- what it is for ----------------------------------------------------------------------------------------------

    def sample(self, n: int, generator: torch.Generator | None = None) -> Sample:
        """Draws n architectures. ``generator`` is on the policy's device; None: the device's default one."""
        shape = (n, len(self.choices), self.prior.shape[1])
        waiting = torch.empty(shape, device=self.start.device).exponential_(generator=generator)
        gumbel = -waiting.clamp_min(torch.finfo(waiting.dtype).tiny).log()  # adding it makes argmax a draw
        return self._walk(n, lambda k, logits: (logits + gumbel[:, k, : logits.shape[1]]).argmax(1))

    def evaluate(self, architectures: Tensor) -> Sample:
        """What the policy says about given architectures, ``(n, n_choices)``: the same as if it had drawn them.

        Raises:
            ValueError: if one is illegal.
        """
        sample = self._walk(len(architectures), lambda k, _: architectures[:, k])
        illegal = sample.step_log_probs.detach().isneginf().any(1)
        if illegal.any():
            raise ValueError(f"not an architecture of this space: {tuple(architectures[illegal][0].tolist())}")
        return sample

    @torch.no_grad()
    def best(self) -> Architecture:
        """The architecture that takes the most probable option at every step."""
        return self._walk(1, lambda _, logits: logits.argmax(1)).tuples()[0]

    # -- the walk ----------------------------------------------------------------------------------------------------

    def _walk(self, n: int, decide: Decide) -> Sample:
        x = start = self.start.expand(n, -1)
        row = torch.zeros(n, dtype=torch.long, device=start.device)  # of the tables, for each sample
        memory: Any = None
        anchors: dict[State, Anchor] = {}
        hidden, logits, taken = [], [], []
        for step in self.steps:
            h, memory = self.sequence(x, memory)
            hidden.append(h)
            x = start
            if step.choices:
                for k, outputs in zip(step.choices, self._outputs(step.choices, h, anchors), strict=True):
                    logits.append(outputs + self.prior[row, : outputs.shape[1]])
                    taken.append(decide(k, logits[-1]))
                    row = self.next[row, taken[-1]]
                x = self._chosen(step.choices, taken[-len(step.choices) :], anchors)
            if step.anchor is not None:
                keys = {kind: pointer.key(h) for kind, pointer in self.pointers.items()}  # type: ignore[operator]
                anchors[step.anchor] = Anchor(torch.zeros_like(h) if step.is_input else h, keys)
        return self._sample(torch.stack(taken, 1), logits, torch.stack(hidden, 1))

    def _outputs(self, choices: Sequence[int], h: Tensor, anchors: dict[State, Anchor]) -> list[Tensor]:
        """What a hidden state says about the options of its choices, ``(n, n_options)`` each."""
        bounded, first = self.controller.bounded, self.choices[choices[0]]
        if not is_pointing(first):
            return [bounded(self.heads[self.head_of[k]](h), first.kind) for k in choices]
        keys = torch.stack([anchors[source].keys[first.kind] for k in choices for source in self._sources(k)], 1)
        scores = bounded(self.pointers[first.kind](h, keys), first.kind)
        if first.kind == "input":
            return list(scores.split([len(self._sources(k)) for k in choices], 1))
        return [
            torch.stack([q if option == "on" else -q for option in self.choices[k].options], 1)
            for k, q in zip(choices, scores.unbind(1), strict=True)
        ]

    def _chosen(self, choices: Sequence[int], taken: Sequence[Tensor], anchors: dict[State, Anchor]) -> Tensor:
        """What the next step reads, ``(n, width)``: an embedding or an anchor, of a group their mean; of skips the sum
        of the anchors, divided by one more than their number."""
        if not is_pointing(self.choices[choices[0]]):
            heads = [self.heads[self.head_of[k]] for k in choices]
            return _mean([head.embedding(option) for head, option in zip(heads, taken, strict=True)])  # type: ignore[operator]
        values = [torch.stack([anchors[source].value for source in self._sources(k)], 1) for k in choices]
        if self.choices[choices[0]].kind == "input":
            rows = torch.arange(len(taken[0]), device=taken[0].device)
            return _mean([value[rows, option] for value, option in zip(values, taken, strict=True)])
        names = [self.choices[k].options for k in choices]
        indices = [options.index("on") if "on" in options else -1 for options in names]
        on = torch.stack([option == index for option, index in zip(taken, indices, strict=True)], 1)
        read = torch.cat(values, 1).mul(on.unsqueeze(2)).sum(1)
        return read / (1 + on.sum(1, keepdim=True))

    def _sources(self, k: int) -> list[State]:
        return [(self.choices[k].cell, source) for source in self.choices[k].sources]

    def _sample(self, taken: Tensor, logits: list[Tensor], hidden: Tensor) -> Sample:
        missing = logits[0].new_full((len(taken), 1), -torch.inf)
        log_probs = torch.cat([*logits, missing], 1)[:, self.columns].log_softmax(2)  # (n, n_choices, most options)
        illegal = log_probs.isneginf()
        probs, finite = log_probs.exp(), log_probs.masked_fill(illegal, 0)
        kl = (probs[:, self.skips] * (finite[:, self.skips] - self.log_target)).sum(2)
        free = (~illegal[:, self.skips]).sum(2) == 2
        return Sample(
            architectures=taken,
            step_log_probs=log_probs.gather(2, taken.unsqueeze(2)).squeeze(2),
            entropies=-(probs * finite).sum(2),
            hidden=hidden,
            skip_kl=kl.where(free, 0).sum(1) / max(1, self.n_skip_groups),
        )


class Head(nn.Module):
    """Scores of some options from a hidden state, ``(n, width)`` to ``(n, n_options)``, and the options' embeddings."""

    def __init__(self, controller: Controller, kind: str, options: Sequence[str]) -> None:
        super().__init__()
        self.options = options
        self.embedding = nn.Embedding(len(options), controller.width)
        biased = kind == "operation" and controller.operation_bias is not None
        self.output = nn.Linear(controller.width, len(options), bias=biased)

    def forward(self, h: Tensor) -> Tensor:
        return self.output(h)


class Pointer(nn.Module):
    """Scores of anchors, ``vᵀ tanh(W₁ a + W₂ h)``: ``h (n, width)`` and keys ``W₁ a (n, m, width)`` to ``(n, m)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width, bias=False)
        self.query = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, 1, bias=False)

    def forward(self, h: Tensor, keys: Tensor) -> Tensor:
        return self.output((keys + self.query(h).unsqueeze(1)).tanh()).squeeze(2)


def _mean(vectors: list[Tensor]) -> Tensor:
    return vectors[0] if len(vectors) == 1 else torch.stack(vectors).mean(0)
