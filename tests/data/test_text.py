"""Text: columns and windows against plain lists, passes, carries, ranks; a vocabulary of the training text alone."""

import warnings
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage

from lightning_nas.data import Schedule, TextData
from lightning_nas.data.text import TextStream, columns, equal_cuts, read_lines, varied_cuts
from lightning_nas.errors import SettingError

# tokens, columns per device, devices: divisible or with tokens left over, and as short as can be
SHAPES = [(12, 4, 1), (23, 3, 1), (103, 5, 2), (96, 2, 3), (2, 1, 1), (17, 4, 2)]


class Text(TextData):
    """Given texts, of lines of words."""

    def __init__(
        self, train=(), valid=(), test=(), batch_size=2, evaluation_batch_size=1, bptt=5, variable_bptt=True, **settings
    ):
        super().__init__(batch_size, evaluation_batch_size, bptt, variable_bptt, **settings)
        self.texts = {"train": train, "valid": valid, "test": test}
        self.read = Counter()

    def lines(self, split):
        self.read[split] += 1
        return [line.split() for line in self.texts[split]]


def numbers(count):
    """A line of ``count`` different words, of which number i becomes i."""
    return [" ".join(map(str, range(count)))]


def windows(stream, number=0):
    """A pass of a stream, as nested lists."""
    return [[part.tolist() for part in stream.get(number * len(stream) + k)] for k in range(len(stream))]


def slow_windows(tokens, n_columns, lengths):
    """Windows of whole columns, token by token."""
    height = len(tokens) // n_columns
    at, found = 0, []
    for length in lengths:
        rows = range(at, at + length)
        inputs = [[tokens[column * height + row] for column in range(n_columns)] for row in rows]
        targets = [[tokens[column * height + row + 1] for column in range(n_columns)] for row in rows]
        found.append([inputs, targets, [row == 0 for row in rows]])
        at += length
    return found


# -- columns and windows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "batch_size", "world_size"), SHAPES)
def test_columns_follow_each_other_in_the_text(size, batch_size, world_size):
    height = size // (batch_size * world_size)
    cut = [columns(torch.arange(size), batch_size, rank, world_size) for rank in range(world_size)]
    assert [tuple(part.shape) for part in cut] == [(height, batch_size)] * world_size
    together = torch.cat(cut, dim=1).t().reshape(-1)
    assert together.tolist() == list(range(height * batch_size * world_size))
    assert size - len(together) < batch_size * world_size


@pytest.mark.parametrize(("size", "batch_size", "world_size"), SHAPES)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_windows_are_those_of_a_slow_reading(size, batch_size, world_size, seed):
    tokens = torch.randint(50, (size,), generator=torch.Generator().manual_seed(0))
    length = size // (batch_size * world_size) - 1
    for rank in range(world_size):
        stream = TextStream(columns(tokens, batch_size, rank, world_size), 7, seed)
        for number in range(3):
            found = windows(stream, number)
            lengths = [len(first) for _, _, first in found]
            assert sum(lengths) == length
            assert min(lengths) >= 1
            if seed is None:
                assert lengths == [7] * (length // 7) + [length % 7] * (length % 7 > 0)
            slow = slow_windows(tokens.tolist(), batch_size * world_size, lengths)
            own = slice(rank * batch_size, (rank + 1) * batch_size)
            slow = [[[row[own] for row in part] for part in (x, y)] + [first] for x, y, first in slow]
            assert found == slow


@pytest.mark.parametrize("seed", [None, 3])
def test_every_token_but_the_first_of_a_column_is_predicted_once_a_pass(seed):
    stream = TextStream(columns(torch.arange(500), 4), 10, seed)
    for number in range(3):
        targets = Counter(t for _, y, _ in windows(stream, number) for row in y for t in row)
        assert targets == Counter(set(range(500)) - {0, 125, 250, 375})


@pytest.mark.parametrize("seed", [None, 3])
def test_a_carry_starts_anew_at_the_first_token_of_every_pass_and_nowhere_else(seed):
    stream = TextStream(columns(torch.arange(200), 2), 10, seed)
    for number in range(3):
        flags = [flag for _, _, first in windows(stream, number) for flag in first]
        assert flags == [True] + [False] * 98
    tokens, targets, first = stream.get(0)
    assert (tokens.dtype, targets.dtype, first.dtype) == (torch.long, torch.long, torch.bool)


@pytest.mark.parametrize("seed", [None, 3])
def test_any_window_is_the_same_at_every_call_in_every_order(seed):
    def stream():
        return TextStream(columns(torch.arange(400), 2), 10, seed)

    sequential = [window for number in range(3) for window in windows(stream(), number)]
    asked = stream()
    for index in (len(sequential) - 1, 0, 7, 7, len(asked), len(asked) - 1, 1, 2 * len(asked), 0):
        assert [part.tolist() for part in asked.get(index)] == sequential[index]


def test_a_window_is_a_copy_of_its_own_size():
    """A worker process hands over the whole memory that a tensor is a part of."""
    stream = TextStream(columns(torch.arange(400), 2), 10)
    tokens, targets, _ = stream.get(3)
    assert tokens.untyped_storage().nbytes() == targets.untyped_storage().nbytes() == 8 * 20
    tokens.zero_()
    assert stream.get(3)[0].tolist() == [[k, 200 + k] for k in range(30, 40)]


# -- random lengths --------------------------------------------------------------------------------------------------


def lengths(length, bptt, seeds):
    return [np.diff(varied_cuts(length, bptt, seed)) for seed in seeds]


@pytest.mark.parametrize("bptt", [2, 3, 5, 35, 70])
@pytest.mark.parametrize("length", [1, 2, 3, 20, 34, 35, 100, 1457])
def test_varied_windows_fill_the_text_and_are_as_many_in_every_pass(length, bptt):
    drawn = lengths(length, bptt, range(20))
    assert {len(pass_) for pass_ in drawn} == {max(1, round(length / (0.975 * bptt)))}
    assert all(pass_.sum() == length and pass_.min() >= 1 for pass_ in drawn)
    if len(drawn[0]) > 3 and bptt > 2:
        assert len({tuple(pass_) for pass_ in drawn}) > 10


def test_lengths_are_distributed_as_published():
    """Against draws one by one, as released with AWD-LSTM, of a text as long as Penn Treebank in 64 columns."""
    random = np.random.default_rng(0)
    slow = [max(5, int(random.normal(35 if random.random() < 0.95 else 17.5, 5) + 0.5)) for _ in range(20_000)]
    drawn = np.concatenate(lengths(929_589 // 64 - 1, 35, range(47)))
    assert len(drawn) == 47 * 426
    assert drawn.mean() == pytest.approx(np.mean(slow), abs=0.3)
    assert drawn.std() == pytest.approx(np.std(slow), abs=0.2)
    assert 4 <= drawn.min() < 10
    assert 45 < drawn.max() <= 58
    for length in range(10, 50, 5):
        assert (drawn < length).mean() == pytest.approx((np.array(slow) < length).mean(), abs=0.015)


# -- parts -----------------------------------------------------------------------------------------------------------


def test_weights_and_train_are_the_training_text_and_architecture_the_validation_text():
    data = Text(["a b"], ["b"], ["b b a"])
    assert data.vocabulary == {"a": 0, "b": 1, "<eos>": 2, "<unk>": 3}
    found = {part: data.tokens(part).tolist() for part in ("weights", "train", "architecture", "test")}
    assert found == {"weights": [0, 1, 2], "train": [0, 1, 2], "architecture": [1, 2], "test": [1, 1, 0, 2]}
    with pytest.raises(ValueError, match="no part 'valid'; there are weights, architecture, train, test"):
        data.stream("valid", 0)


def test_the_test_text_is_read_by_testing_alone():
    data = Text(numbers(100), numbers(50), numbers(40))
    data.stream("weights", 0).get(0)
    data.stream("architecture", 0).get(0)
    list(data.val_dataloader())
    assert data.read == {"train": 2, "valid": 1}  # the vocabulary, then the tokens
    list(data.test_dataloader())
    list(data.test_dataloader())
    assert data.read == {"train": 2, "valid": 1, "test": 1}


def test_streams_are_independent_of_each_other():
    """Whatever is asked of one, the other's windows are the same; and each has its own beginnings of passes."""
    alone = windows(Text(numbers(100), numbers(60)).stream("architecture", 0))
    data = Text(numbers(100), numbers(60))
    weights, architecture = (data.stream(part, 0) for part in ("weights", "architecture"))
    schedule = Schedule({"weights": weights, "architecture": architecture}, 2 * len(weights), lambda: (0, 0))
    steps = list(schedule)
    assert [[part.tolist() for part in step["architecture"]] for step in steps[: len(alone)]] == alone
    for name, stream in (("weights", weights), ("architecture", architecture)):
        starts = [k for k, step in enumerate(steps) if step[name][2].any()]
        assert starts == list(range(0, 2 * len(weights), len(stream)))
    assert len(weights) != len(architecture)


def test_lengths_vary_by_part_seed_and_pass_in_the_training_text_alone():
    data = Text(numbers(3000), numbers(600), bptt=20)

    def drawn(part, seed, number):
        return tuple(len(first) for _, _, first in windows(data.stream(part, seed), number))

    found = {drawn(part, seed, k) for part in ("weights", "train") for seed in (0, 1) for k in (0, 1)}
    assert len(found) == 8
    assert drawn("weights", 0, 1) == drawn("weights", 0, 1)
    assert set(drawn("architecture", 0, 0)[:-1]) == {20}
    data.variable_bptt = False
    assert set(drawn("weights", 0, 0)[:-1]) == {20}


def test_ranks_read_columns_of_their_own_in_windows_of_the_same_length():
    streams = {}
    for rank in range(2):
        data = Text(numbers(1000), numbers(300), batch_size=3, evaluation_batch_size=4)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        streams[rank] = data.stream("weights", 0), data.evaluation("architecture")
    alone = Text(numbers(1000), numbers(300), batch_size=6, evaluation_batch_size=4)
    for index in (0, 3, 200, 500):
        together = alone.stream("weights", 0).get(index)
        parts = [streams[rank][0].get(index) for rank in range(2)]
        for k in (0, 1):
            assert torch.equal(torch.cat([part[k] for part in parts], dim=1), together[k])
        assert all(torch.equal(part[2], together[2]) for part in parts)
    for evaluation in (streams[0][1], streams[1][1]):  # all of it, for all ranks have to come to the same score
        for batch, other in zip(evaluation, alone.evaluation("architecture"), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))


def test_evaluation_reads_on_in_windows_of_bptt():
    data = Text(numbers(100), numbers(100), batch_size=7, evaluation_batch_size=2, bptt=20)
    tokens = data.tokens("architecture")
    slow = slow_windows(tokens.tolist(), 2, [20, 20, 9])
    loader = data.evaluation("architecture")
    assert len(loader) == 3
    for _ in range(2):
        assert [[part.tolist() for part in batch] for batch in loader] == slow
    for n_batches in (1, 2, 3, 4):
        few = data.evaluation("architecture", n_batches)
        assert len(few) == min(n_batches, 3)
        assert [[part.tolist() for part in batch] for batch in few] == slow[:n_batches]
    plain = list(data.plain_batches())
    assert [[part.tolist() for part in batch] for batch in plain] == slow_windows(list(range(101)), 7, [13])


# -- vocabulary ------------------------------------------------------------------------------------------------------


def test_the_vocabulary_is_that_of_the_training_text_in_its_order():
    data = Text(["the cat", "", "sat the mat"], ["the dog sat"], ["a cat"])
    assert list(data.vocabulary) == ["the", "cat", "<eos>", "sat", "mat", "<unk>"]
    assert list(data.vocabulary.values()) == list(range(6))
    assert data.inputs == {"vocabulary": 6, "bptt": data.bptt}
    assert data.tokens("weights").tolist() == [0, 1, 2, 2, 3, 0, 4, 2]
    assert data.tokens("architecture").tolist() == [0, 5, 3, 2]
    assert data.tokens("test").tolist() == [5, 1, 2]


def test_an_unknown_word_of_the_text_itself_is_the_same_word():
    data = Text(["<unk> a"], ["b <unk>"])
    assert data.vocabulary == {"<unk>": 0, "a": 1, "<eos>": 2}
    assert data.tokens("architecture").tolist() == [0, 0, 2]


def test_the_most_frequent_words_are_kept_and_the_first_of_those_that_are_as_frequent():
    text = ["x y y", "z z w", "w w"]
    kept = {
        3: ["<eos>", "w", "<unk>"],
        4: ["y", "<eos>", "w", "<unk>"],
        5: ["y", "<eos>", "z", "w", "<unk>"],
        6: ["x", "y", "<eos>", "z", "w", "<unk>"],
        99: ["x", "y", "<eos>", "z", "w", "<unk>"],
    }
    for most, words in kept.items():
        data = Text(text, max_vocabulary=most)
        assert list(data.vocabulary) == words
    assert Text(text, max_vocabulary=3).tokens("weights").tolist() == [2, 2, 2, 0, 2, 2, 1, 0, 1, 1, 0]
    with_unknown = Text(["<unk> a", "b b"], max_vocabulary=3)
    assert list(with_unknown.vocabulary) == ["<unk>", "<eos>", "b"]


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, r"^batch_size: at least 1, got 0$"),
        ({"evaluation_batch_size": 0}, r"^evaluation_batch_size: at least 1, got 0$"),
        ({"bptt": 1}, r"^bptt: at least 2, got 1$"),
        ({"max_vocabulary": 2}, r"^max_vocabulary: at least 3, <eos>, <unk> and a word; got 2$"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        Text(**settings)


def test_a_text_too_short_for_the_batch_is_refused():
    data = Text(numbers(20), numbers(8), batch_size=11, evaluation_batch_size=5)
    with pytest.raises(
        SettingError, match=r"^batch_size: 11 columns are .* 21 tokens of the train text,.* at most 10, or"
    ):
        data.stream("weights", 0)
    with pytest.raises(
        SettingError, match=r"^evaluation_batch_size: 5 columns are .* 9 .* valid text,.* at most 4, or"
    ):
        data.evaluation("architecture")
    data = Text(numbers(20), batch_size=1)
    data.trainer = SimpleNamespace(global_rank=0, world_size=11)
    with pytest.raises(SettingError, match=r"^batch_size: 1 columns on each of 11 devices .*; use fewer devices, or"):
        data.stream("weights", 0)
    data = Text(numbers(20), batch_size=6)
    assert len(data.stream("weights", 0).get(0)[0]) == 2
    data.trainer = SimpleNamespace(global_rank=0, world_size=2)
    with pytest.raises(SettingError, match=r"^batch_size: 6 columns on each of 2 devices .* at most 5, or"):
        data.stream("weights", 0)


def said(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("call", "length"),
    [
        (lambda data: data.stream("weights", 0), 9),
        (lambda data: data.stream("architecture", 0), 4),
        (lambda data: data.plain_batches(), 9),
        (lambda data: data.evaluation("architecture"), None),  # the loss is the same for any windows
    ],
)
@pytest.mark.parametrize("bptt", [4, 9, 10])
def test_a_bptt_longer_than_the_columns_is_told(call, length, bptt):
    data = Text(numbers(20), numbers(10), bptt=bptt)  # 10 tokens in each of two columns, of which the last is no input
    found = said(lambda: call(data))
    expected = length is not None and bptt > length
    assert [text.split(", so that")[0] for text in found if text.startswith("bptt")] == expected * [
        f"bptt {bptt} is more than the {length} tokens that are read of a column of the "
        f"{'valid' if length == 4 else 'train'} text"
    ]


@pytest.mark.parametrize(
    ("train", "settings", "expected"),
    [
        (["a b"], {}, True),
        (["a b <unk>"], {}, False),  # there it is trained
        (["a b c"], {"max_vocabulary": 4}, False),
        (["a b c"], {"max_vocabulary": 5}, True),
        (["a b x y"], {}, False),
    ],
)
def test_words_of_which_nothing_is_learnt_are_told(train, settings, expected):
    data = Text(train, ["a x", "y"], **settings)
    assert [text.split(" of the valid")[0] for text in said(lambda: data.tokens("architecture"))] == (
        ["2 of the 5 tokens"] if expected else []
    )


def test_lines_of_a_file_are_divided_by_white_space(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffthe  cat\tsat\r\n\n ÉTÉ\u2028x\nlast".encode())
    assert list(read_lines(path)) == [["the", "cat", "sat"], [], ["ÉTÉ", "x"], ["last"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"text\.txt has no words$"),
        (b" \n\n\t\n", r"text\.txt has no words$"),
        (b"good\n\xff\xfe\x80", r"text\.txt is not text in UTF-8 \(invalid start byte\)$"),
        ("caf\u00e9".encode("latin-1"), r"text\.txt is not text in UTF-8"),
        (bytes(100), r"text\.txt is not text, it has zero bytes$"),
        (None, r"text\.txt cannot be read \(No such file or directory\)$"),
    ],
)
def test_a_file_that_is_no_text_is_refused_by_its_name(tmp_path, content, message):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=f"^data: {tmp_path}/{message}"):
        list(read_lines(path))


# -- in a trainer ----------------------------------------------------------------------------------------------------


class Bigrams(LightningModule):
    """A module without a schedule. It logs the length of its windows."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Embedding(101, 101)
        self.seen = {"train": [], "val": []}

    def _loss(self, batch, what):
        tokens, targets, first = batch
        self.seen[what].append((len(tokens), first.any().item()))
        return torch.nn.functional.cross_entropy(self.logits(tokens).flatten(0, 1), targets.flatten())

    def training_step(self, batch, batch_idx):
        return self._loss(batch, "train")

    def validation_step(self, batch, batch_idx):
        self._loss(batch, "val")
        self.log("length", float(len(batch[0])))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_module_of_someone_else_trains_on_windows_in_order(tmp_path):
    data, module = Text(numbers(99), numbers(50), bptt=20), Bigrams()
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, num_sanity_val_steps=0, **settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*batch_size.*")  # it takes the batch's from the first axis
        trainer.fit(module, data)
    assert module.seen["train"] == 2 * [(20, True), (20, False), (9, False)]
    assert module.seen["val"] == 2 * [(20, True), (20, False), (10, False)]
    # weighted by tokens
    assert trainer.callback_metrics["length"].item() == pytest.approx((20 * 20 + 20 * 20 + 10 * 10) / 50)


def test_lightning_does_not_deal_out_windows_to_the_ranks(tmp_path):
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, default_root_dir=tmp_path)
    loader = Text(numbers(99), numbers(50)).evaluation("architecture")
    prepared = trainer._data_connector._prepare_dataloader(loader, shuffle=False, mode=RunningStage.VALIDATING)
    assert len(list(prepared)) == len(equal_cuts(50, 5)) - 1


@pytest.mark.parametrize("asked", [{"views": 2}, {"labelled": False}])
def test_a_text_has_one_view_and_its_labels(asked):
    data = Text(numbers(100), numbers(60))
    for read in (lambda: data.stream("weights", 0, **asked), lambda: data.evaluation("weights", **asked)):
        with pytest.raises(SettingError, match=r"^data: Text gives one view of each example, with labels, not"):
            read()
