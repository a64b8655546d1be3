"""Sudoku of 4 x 4 cells for `heedful search`: searches to learn from, and the verifier.

    python examples/sudoku.py --rows 20000 --out runs/sudoku.jsonl
    heedful search pretrain --data runs/sudoku.jsonl --judge examples/sudoku.py:solved --out runs/sudoku
    heedful search improve --model runs/sudoku --out runs/sudoku-star
    heedful search eval --model runs/sudoku-star --out runs/sudoku-eval

A problem is the 16 cells row by row, `.` for an empty one. A stream goes through the empty cells in order and tries the
digits that row, column and box allow: `a2 3` puts a 3 into the second cell of the first row, `b1 x` says that nothing
fits there, and a cell that has a digit already takes back all that was tried after it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator

NAMES = [f"{row}{column}" for row in "abcd" for column in range(1, 5)]
DIGITS = "1234"


def neighbours(cell: int) -> set[int]:
    """The cells that share a row, a column or a box with a cell."""
    row, column = divmod(cell, 4)
    return {
        other
        for other in range(16)
        if other != cell
        and (
            other // 4 == row
            or other % 4 == column
            or (other // 8 == row // 2 and other % 4 // 2 == column // 2)
        )
    }


NEIGHBOURS = [neighbours(cell) for cell in range(16)]


def full_grid(rng: random.Random) -> list[str]:
    """A filled grid, cell by cell at random until no cell is left without a digit."""
    while True:
        grid = ["."] * 16
        for cell in range(16):
            taken = {grid[other] for other in NEIGHBOURS[cell]}
            grid[cell] = rng.choice([digit for digit in DIGITS if digit not in taken] or "x")
        if "x" not in grid:
            return grid


def puzzle(rng: random.Random, fewest: int, most: int) -> list[str]:
    """A grid with so many cells empty; it may have several solutions, and each is as good."""
    grid = full_grid(rng)
    for cell in rng.sample(range(16), rng.randint(fewest, most)):
        grid[cell] = "."
    return grid


def search(grid: list[str]) -> Iterator[str]:
    """The words of a depth-first search, up to the first solution."""
    empty = [cell for cell in range(16) if grid[cell] == "."]
    grid = list(grid)
    left: list[list[str]] = []
    while len(left) < len(empty):
        cell = empty[len(left)]
        taken = {grid[other] for other in NEIGHBOURS[cell]}
        left.append([digit for digit in DIGITS if digit not in taken])
        while not left[-1]:
            cell = empty[len(left) - 1]
            if grid[cell] == ".":
                yield f"{NAMES[cell]} x"
            grid[cell] = "."
            left.pop()
        cell = empty[len(left) - 1]
        grid[cell] = left[-1].pop(0)
        yield f"{NAMES[cell]} {grid[cell]}"


def correct(prompt: str, stream: str) -> bool:
    """Whether the digits that stand at the end of a stream solve the problem."""
    grid, words = prompt.split(), stream.split()
    given = {cell for cell in range(16) if grid[cell] != "."}
    tried: list[int] = []
    for name, digit in zip(words[::2], words[1::2]):
        if name not in NAMES or digit not in (*DIGITS, "x"):
            return False
        cell = NAMES.index(name)
        if cell in given:
            return False
        if cell in tried:
            for other in tried[tried.index(cell) :]:
                grid[other] = "."
            del tried[tried.index(cell) :]
        if digit != "x":
            grid[cell] = digit
            tried.append(cell)
    if len(words) % 2 or "." in grid:
        return False
    return all(grid[cell] not in {grid[other] for other in NEIGHBOURS[cell]} for cell in range(16))


def solved(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """The verifier, in the signature of TRL's reward functions: 1 for a solution, else 0."""
    return [float(correct(prompt, stream)) for prompt, stream in zip(prompts, completions, strict=True)]


def main() -> None:
    """Write rows of prompt and completion, each puzzle once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--out", default="sudoku.jsonl")
    parser.add_argument("--empty", type=int, nargs=2, default=(6, 10), help="fewest and most empty cells")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    rows: dict[str, str] = {}
    while len(rows) < options.rows:
        grid = puzzle(rng, *options.empty)
        rows.setdefault(" ".join(grid), " ".join(search(grid)))
    with open(options.out, "w", encoding="utf-8") as file:
        for prompt, completion in rows.items():
            file.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")


if __name__ == "__main__":
    main()
