"""How the parser's messages become one line, and which exceptions are a user's own."""

import pytest
from jsonargparse import ArgumentError, ArgumentParser

from lightning_nas.errors import SettingError, one_line, setting_error

UNION = "Does not validate against any of the Union subtypes"
NONE = "Expected a <class 'NoneType'>"

# Written by jsonargparse 4.53, from which each line was kept; what a user typed stands before it.
MESSAGES = {
    "--batch_size x": (
        "Parser key \"batch_size\":\n  Expected a <class 'int'>. Got value: x",
        "batch_size: expected int, got x",
    ),
    "--trainer.max_epochs q": (
        f"Parser key \"trainer.max_epochs\":\n  {UNION}\n  Subtypes: [<class 'int'>, <class 'NoneType'>]\n  Errors:\n"
        f"    - Expected a <class 'int'>\n    - {NONE}\n  Given value type: <class 'str'>\n  Given value: q",
        "trainer.max_epochs: expected int",
    ),
    "--inputs.image_size big": (
        f"Parser key \"inputs\":\n  {UNION}\n  Subtypes: [dict[str, int], <class 'NoneType'>]\n  Errors:\n"
        f"    - Expected a <class 'int'>. Got value: big\n    - {NONE}\n"
        "  Given value type: <class 'jsonargparse._util.NestedArg'>\n"
        "  Given value: NestedArg(key='image_size', val='big')",
        "inputs.image_size: expected int, got big",
    ),
    "--model.order third": (
        f"Parser key \"model\":\n  {UNION}\n  Subtypes: [<class 'lightning_nas.training.module.NetworkModule'>, "
        "<class 'NoneType'>]\n  Errors:\n    - Problem with given class_path 'lightning_nas.methods.DARTS':\n"
        "        Parser key \"order\":\n          Expected a typing.Literal['first', 'finite_difference', 'exact']. "
        f"Got value: third\n    - {NONE}\n  Given value type: <class 'jsonargparse._util.NestedArg'>\n"
        "  Given value: NestedArg(key='order', val='third')",
        "model.order: expected first or finite_difference or exact, got third",
    ),
    "--model.space.nodes x": (
        f"Parser key \"model\":\n  {UNION}\n  Subtypes: [<class 'lightning_nas.training.module.NetworkModule'>, "
        "<class 'NoneType'>]\n  Errors:\n    - Problem with given class_path 'lightning_nas.methods.DARTS':\n"
        "        Parser key \"space\":\n          Problem with given class_path 'lightning_nas.spaces.DARTSCell':\n"
        "            Parser key \"nodes\":\n              Expected a <class 'int'>. Got value: x\n"
        f"    - {NONE}\n  Given value type: <class 'jsonargparse._util.NestedArg'>\n"
        "  Given value: NestedArg(key='space.nodes', val='x')",
        "model.space.nodes: expected int, got x",
    ),
    "--model.space.nods 3": (
        f"Parser key \"model\":\n  {UNION}\n  Subtypes: [<class 'lightning_nas.training.module.NetworkModule'>, "
        "<class 'NoneType'>]\n  Errors:\n    - Problem with given class_path 'lightning_nas.methods.DARTS':\n"
        "        Parser key \"space\":\n          Problem with given class_path 'lightning_nas.spaces.DARTSCell':\n"
        f"            Option 'nods' is not accepted\n    - {NONE}\n"
        "  Given value type: <class 'jsonargparse._util.NestedArg'>\n"
        "  Given value: NestedArg(key='space.nods', val='3')",
        "model.space: Option 'nods' is not accepted",
    ),
    "--foo 1": ("unrecognized arguments: --foo 1", "unrecognized arguments: --foo 1"),
    "--out": ("argument --out: expected one argument", "argument --out: expected one argument"),
    "--seeds 'a\nb'": (
        "Parser key \"seeds\":\n  Expected a <class 'int'>. Got value: a\nb",
        "seeds: expected int, got a; b",
    ),
    "noise alone": ('Parser key "seeds":\n  Given value: 3', 'seeds: Parser key "seeds":'),
}


@pytest.mark.parametrize(("message", "line"), MESSAGES.values(), ids=MESSAGES)
def test_a_message_becomes_its_one_useful_line(message, line):
    assert one_line(message) == line


def count(number: int, rate: float | None = None, names: list[str] | None = None) -> None:
    """A function to be called from a command line."""


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--number", "x"], "number: expected int, got x"),
        (["--number", "1", "--rate", "x"], "rate: expected float"),
        (["--number", "1", "--names", "x"], "names: expected list"),
        (["--number", "1", "--unknown", "x"], "unrecognized arguments: --unknown x"),
        ([], "the following arguments are required: number"),
    ],
)
def test_the_installed_parsers_messages_too(argv, line):
    """The messages above are those of one version; this goes through whichever is installed."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(count, as_positional=False)
    with pytest.raises(ArgumentError) as caught:
        parser.parse_args(argv)
    said = one_line(str(caught.value))
    assert said.startswith(line)
    assert "NoneType" not in said
    assert len(said.splitlines()) == 1


def raised(function):
    try:
        function()
    except Exception as error:
        return error


def test_a_setting_error_is_found_behind_the_exceptions_it_caused():
    own = SettingError("data.folder: empty")

    def explicit():
        raise RuntimeError("the trainer failed") from own

    def implicit():
        try:
            raise own
        except SettingError:
            raise RuntimeError("as a library does")  # noqa: B904  # no "from": that is the case

    def twice():
        try:
            explicit()
        except RuntimeError as error:
            raise OSError("and this") from error

    assert setting_error(own) is own
    assert setting_error(raised(explicit)) is own
    assert setting_error(raised(implicit)) is own
    assert setting_error(raised(twice)) is own


def test_another_exception_is_no_setting_error():
    assert setting_error(None) is None
    assert setting_error(ValueError("a bug")) is None
    assert setting_error(raised(lambda: {}["a bug"])) is None
    error = RuntimeError("outer")
    error.__cause__ = ValueError("inner")
    assert setting_error(error) is None
