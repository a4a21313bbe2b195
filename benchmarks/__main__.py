"""The inner steps of searches against a textbook implementation of the same mathematics.

    python -m benchmarks --rows darts-cnn-first enas-sampling --rounds 5

Both sides take steps in turns in one process. A figure is the median of the rounds after a first step, a ratio that of
the medians, textbook by ours, with the smallest and the largest of two steps that followed each other. Memory is the
most that two steps take beyond the weights, each side in a process of its own. Before a row is timed, its gradients are
compared in float64, where they have to be the same, and those of float32 with them.
"""

import argparse
import dataclasses
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import images, text
from benchmarks.agreement import Agreement
from benchmarks.loader import images_per_second
from benchmarks.measure import SIDES, Stopwatch
from benchmarks.rows import Row, Sizes
from benchmarks.sampling import Sampling
from benchmarks.tabular import Evolution

ROWS: dict[str, type[Row]] = {
    row.name: row
    for row in (
        images.Yardstick,
        images.DARTSFirst,
        images.DARTSSecond,
        images.SNASStep,
        images.GDASStep,
        text.DARTSRecurrentFirst,
        text.DARTSRecurrentFirstCompiled,
        text.DARTSRecurrentSecond,
        text.DARTSRecurrentSecondCompiled,
        images.ENASMicroShared,
        text.ENASRecurrentShared,
        text.ENASRecurrentController,
        Sampling,
        images.RandomSearch,
        images.UniformPaths,
        images.Retraining,
        Evolution,
    )
}
BATCHES_OF_A_STEP = {
    images.DARTSFirst: 2,
    images.DARTSSecond: 2,
    images.SNASStep: 1,
    images.GDASStep: 2,
    images.RandomSearch: 1,
    images.Retraining: 1,
}

HEADER = """\
| step | textbook s | ours s | ratio (least, most) | CPU ratio | first s | MiB textbook | ours | ratio |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    for field in dataclasses.fields(Sizes):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    given = vars(parser.parse_args())
    names, rounds, threads = (given.pop(name) for name in ("rows", "rounds", "threads"))
    sizes = Sizes(**given)
    torch.set_num_threads(threads)
    print(machine(sizes.device, threads))
    print(", ".join(f"{name} {value}" for name, value in given.items()) + f"; {rounds} rounds\n")

    steps: dict[type[Row], float] = {}
    print(HEADER)
    agreements = {}
    for name in names:
        row = ROWS[name](sizes)
        agreements[row.title] = Agreement.of(row.reduced())
        stopwatch = row.time(rounds)
        steps[type(row)] = stopwatch.seconds("ours")
        print(line(row, stopwatch), flush=True)
    print("\nDifference between the sides in float64; errors in float32, textbook / ours, by the norm:")
    for title, agreement in agreements.items():
        if agreement is not None:
            print(f"  {title}: {agreement.describe()}")
    if consumers := {row: steps[row] for row in BATCHES_OF_A_STEP if row in steps}:
        print_loader(sizes, consumers)


def line(row: Row, stopwatch: Stopwatch) -> str:
    least, most = stopwatch.spread()
    ratio = f"{stopwatch.ratio():.2f} ({least:.2f}, {most:.2f})"
    seconds = [f"{stopwatch.seconds(side):.4g}" for side in SIDES]
    memory = [row.memory(side) for side in SIDES]
    figures = [*seconds, ratio, f"{stopwatch.ratio(cpu=True):.2f}", f"{stopwatch.first('ours'):.3g}"]
    if memory[0] is None or memory[1] is None:
        figures += ["", "", ""]
    else:
        figures += [f"{memory[0]:,.0f}", f"{memory[1]:,.0f}", f"{memory[0] / memory[1]:.2f}"]
    widths = (10, 8, 19, 9, 7, 12, 5, 5)
    return f"| {row.title:42} | " + " | ".join(f"{f:>{w}}" for f, w in zip(figures, widths, strict=True)) + " |"


def print_loader(sizes: Sizes, steps: dict[type[Row], float]) -> None:
    print("\n| images per second | |\n|---|---|")
    for workers in (0, 1, 2):
        print(f"| loader, {workers} workers | {images_per_second(sizes.batch, workers):,.0f} |", flush=True)
    print(f"| loader, 2 workers, cutout | {images_per_second(sizes.batch, 2, cutout=16):,.0f} |")
    for row, seconds in steps.items():
        print(f"| {row.title} | {BATCHES_OF_A_STEP[row] * sizes.batch / seconds:,.0f} |")


def machine(device: str, threads: int) -> str:
    """What this runs on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            row.partition(":")[2].strip() for row in cpuinfo.read_text().splitlines() if row.startswith("model name")
        ]
        processor = f"{len(names)} × {names[0]}" if names else processor
    gpu = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    return (
        f"{processor}{gpu}, {threads} threads; Python {platform.python_version()}, torch {torch.__version__}, "
        f"Lightning {version('lightning')}"
    )


if __name__ == "__main__":
    main()
