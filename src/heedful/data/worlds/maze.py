"""A ball that is pushed through a maze: PointMaze of gymnasium-robotics with a fixed way, and goal-agnostic play.

`gymnasium.make("heedful.data.worlds.maze:PlayMaze-UMaze-v0")`, also `-Medium-`, `-Large-` and `-Tuning-`, a small maze
of our own on which settings can be chosen for the others. Start and goal are the two cells that lie farthest apart;
`start="anywhere"` puts the ball on any cell, as play data needs. A force is held for five steps of the simulator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from heedful.data.worlds.sparse import Array, SparseTask, package
from heedful.errors import HeedfulError

Cell = tuple[int, int]
TUNING = (
    (1, 1, 1, 1, 1, 1),
    (1, 0, 0, 0, 0, 1),
    (1, 0, 1, 1, 1, 1),
    (1, 0, 0, 0, 0, 1),
    (1, 1, 1, 1, 1, 1),
)
MAPS = {"UMaze": "U_MAZE", "Medium": "MEDIUM_MAZE", "Large": "LARGE_MAZE"}
STEPS = {"UMaze": 60, "Medium": 120, "Large": 160, "Tuning": 80}
"""Decisions before an episode is cut: PointMaze's own limits, over five."""
REPEAT = 5
NEAR = 0.35
"""How near its middle a cell counts as reached, in cells."""
GAIN, DAMPING = 4.0, 0.8
"""The controller's: force by distance and by speed."""
BIAS = np.deg2rad(50)
WEAK = 0.5


class PlayMaze(SparseTask):
    """Observation (4,): place and speed; action (2,): force, in [-1, 1]. Success: within 0.45 of the goal."""

    def __init__(
        self,
        maze: str = "UMaze",
        *,
        start: str = "cell",
        repeat: int = REPEAT,
        render_mode: str | None = None,
    ) -> None:
        if start not in ("cell", "anywhere") or maze not in STEPS:
            raise HeedfulError(
                f"maze {maze!r}, start {start!r}: mazes are {', '.join(STEPS)}, starts cell and anywhere"
            )
        env = package("gymnasium_robotics.envs.maze.point_maze").PointMazeEnv
        self.map = TUNING if maze == "Tuning" else _map(MAPS[maze])
        inner = env(
            maze_map=[list(row) for row in self.map],
            reward_type="sparse",
            continuing_task=False,
            render_mode=render_mode,
        )
        inner.position_noise_range = 0.0  # its constructor would hand the option on to MuJoCo's
        self.start = start
        self.first, self.goal = farthest(self.map)
        super().__init__(inner, inner.action_space, repeat=repeat, render_mode=render_mode)

    def begin(self, seed: int) -> Any:
        """The ball is put near the middle of its cell; the goal is the middle of its own."""
        generator = np.random.default_rng(seed)
        cell = self.first
        if self.start == "anywhere":
            free = [c for c in cells(self.map) if c != self.goal]
            cell = free[generator.integers(len(free))]
        shown, _ = self.inner.reset(
            seed=seed, options={"goal_cell": np.array(self.goal), "reset_cell": np.array(cell)}
        )
        data = self.inner.point_env
        place = data.data.qpos + generator.uniform(-0.25, 0.25, 2)
        data.set_state(place, data.data.qvel)
        return {**shown, "observation": np.concatenate([data.data.qpos, data.data.qvel])}

    def see(self, shown: Any) -> Array:
        """Place and speed; the goal never moves."""
        return np.asarray(shown["observation"], np.float32)

    def solved(self, shown: Any, info: Any) -> bool:
        """The inner environment says it."""
        return bool(info["success"])

    def middle(self, cell: Cell) -> Array:
        """(2,) where the middle of a cell is."""
        return np.asarray(self.inner.maze.cell_rowcol_to_xy(np.array(cell)), np.float32)

    def cell_of(self, place: Array) -> Cell:
        """The cell of a place (2,)."""
        row, column = self.inner.maze.cell_xy_to_rowcol(np.asarray(place, np.float64))
        return int(row), int(column)


def _map(name: str) -> Sequence[Sequence[int]]:
    return tuple(tuple(row) for row in getattr(package("gymnasium_robotics.envs.maze.maps"), name))


# ---- ways


def cells(maze: Sequence[Sequence[int]]) -> list[Cell]:
    """The free cells, row by row."""
    return [(i, j) for i, row in enumerate(maze) for j, wall in enumerate(row) if not wall]


def distances(maze: Sequence[Sequence[int]], goal: Cell) -> dict[Cell, int]:
    """Steps from each free cell to a goal, by breadth-first search."""
    found, waiting = {goal: 0}, deque([goal])
    while waiting:
        i, j = waiting.popleft()
        for cell in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if cell not in found and not maze[cell[0]][cell[1]]:
                found[cell] = found[i, j] + 1
                waiting.append(cell)
    return found


def farthest(maze: Sequence[Sequence[int]]) -> tuple[Cell, Cell]:
    """The two cells with the longest way between them; of several pairs the first."""
    pairs = [(steps, a, b) for a in cells(maze) for b, steps in distances(maze, a).items()]
    most = max(steps for steps, _, _ in pairs)
    return next((a, b) for steps, a, b in pairs if steps == most)


# ---- behaviours


def play(env: Any, generator: np.random.Generator) -> Callable[[Array], Array]:
    """To one cell after another, whichever, along the shortest way: a behaviour that knows of no goal."""
    return _wander(env.unwrapped, generator, 1.0, 0.0)


def biased(env: Any, generator: np.random.Generator) -> Callable[[Array], Array]:
    """The same, with half the force and always 50 degrees to one side: what is best to do is never done."""
    return _wander(env.unwrapped, generator, WEAK, BIAS * generator.choice([-1.0, 1.0]))


def solve(env: Any, generator: np.random.Generator) -> Callable[[Array], Array]:
    """Straight to the goal, to see that a maze can be solved."""
    return _wander(env.unwrapped, generator, 1.0, 0.0, aims=False)


def _wander(
    task: PlayMaze, generator: np.random.Generator, force: float, turn: float, *, aims: bool = True
) -> Callable[[Array], Array]:
    free = cells(task.map)
    ways = distances(task.map, task.goal)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

    def act(seen: Array) -> Array:
        nonlocal ways
        here = task.cell_of(seen[:2])
        if here not in ways:  # pressed into a corner, a ball's middle can lie in a wall's cell
            here = min(free, key=lambda cell: float(np.linalg.norm(task.middle(cell) - seen[:2])))
        if aims and (ways[here] == 0 or aim[0]):
            aim[0] = False
            others = [cell for cell in free if cell != here]
            ways = distances(task.map, others[generator.integers(len(others))])
        steps = [cell for cell in ways if abs(cell[0] - here[0]) + abs(cell[1] - here[1]) == 1]
        following = min(steps, key=ways.__getitem__) if ways[here] else here
        push = GAIN * (task.middle(following) - seen[:2]) - DAMPING * seen[2:4]
        push = push / max(1.0, float(np.abs(push).max()))
        return (force * rotation @ push).astype(np.float32)

    aim = [True]
    return act


for _maze, _steps in STEPS.items():
    gym.register(
        f"PlayMaze-{_maze}-v0",
        entry_point=f"{__name__}:PlayMaze",
        max_episode_steps=_steps,
        kwargs={"maze": _maze},
    )
