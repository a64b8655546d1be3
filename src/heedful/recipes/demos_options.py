"""Options of the commands `heedful demos ...`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Data = Positional[Annotated[str, arg(metavar="DATA")]]


@dataclass(frozen=True)
class Check:
    """Find what is wrong with demonstrations: episode, frame, column. Exit status 1 on errors."""

    data: Data
    """A folder or file: LeRobotDataset v2.1 or v3, DROID raw, RLDS (TFRecord), HDF5 of robomimic or ALOHA."""
    only: tuple[str, ...] = ()
    """Only these checks, such as `idle jump`."""
    frames: bool = False
    """Decode every frame too: pictures that are damaged, cameras that stand still while the arm moves."""
    documented: tuple[str, ...] = ()
    """What an action column is said to hold, as `action="joint velocity"`."""
    out: str = ""
    """Write all findings there, one JSON a line."""
    json: bool = False
    """Print the findings as JSON."""


@dataclass(frozen=True)
class Info:
    """What a data set holds, and how varied it is: verbs, objects, scenes, viewpoints, first contacts."""

    data: Data
    """A data set of any layout."""
    out: str = ""
    """A folder for report.html with the plots."""
    pictures: bool = True
    """Also join scenes that look the same, which decodes a few frames of each episode."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True, kw_only=True)
class Trim:
    """Keep only the frames in which something happens: each kept range becomes an episode, or one file of ranges."""

    data: Data
    """A data set of any layout."""
    out: str = ""
    """The new data set."""
    ranges: str = ""
    """Also write the ranges there, as openpi has them; without --out nothing else."""
    keep: str = ""
    """Take the ranges from this file, instead of finding them."""
    rule: Literal["change", "speed"] = "change"
    """change: openpi's, idle where no commanded velocity changes. speed: idle where every velocity is small."""
    threshold: float = 0.0
    """Below it nothing moves; 0: 0.001 for change, 0.01 for speed."""
    signal: str = ""
    """The column of velocities, or of positions; the default is the first of DROID's that is there."""
    min_idle: int = 7
    """Idle runs shorter than this stay."""
    min_keep: int = 16
    """Ranges shorter than this go."""
    drop_last: int = 10
    """Frames cut from the end of each range."""
    join: bool = False
    """Put the ranges of an episode together in one episode; where frames went, it jumps."""
    codec: Literal["h264", "av1"] = "h264"
    """Of pictures that are encoded; videos that can be copied are."""
    crf: int = 23
    """Quality of encoded pictures; lower is better and larger."""
    gop: int = 2
    """Frames from one key frame to the next."""
    json: bool = False
    """Print what was done as JSON."""
    quiet: bool = False
    """No progress display."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Divide episodes into data sets at random, all episodes of a group into one of them."""

    data: Data
    """A data set of any layout."""
    out: str
    """A folder; each part becomes a data set in it."""
    parts: tuple[str, ...] = ("train=0.9", "val=0.1")
    """Names and shares."""
    by: str = ""
    """Keep episodes with the same value of this together, such as `scene_id`."""
    seed: int = 0
    """Of the draw."""
    codec: Literal["h264", "av1"] = "h264"
    """Of pictures that are encoded; videos that can be copied are."""
    crf: int = 23
    """Quality of encoded pictures; lower is better and larger."""
    gop: int = 2
    """Frames from one key frame to the next."""
    json: bool = False
    """Print what was done as JSON."""
    quiet: bool = False
    """No progress display."""


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Put data sets together; columns and frame rate must be the same, statistics are made anew."""

    data: Positional[Annotated[tuple[str, ...], arg(metavar="DATA DATA [DATA ...]")]]
    """Data sets of any layout."""
    out: str
    """The new data set."""
    codec: Literal["h264", "av1"] = "h264"
    """Of pictures that are encoded; videos that can be copied are."""
    crf: int = 23
    """Quality of encoded pictures; lower is better and larger."""
    gop: int = 2
    """Frames from one key frame to the next."""
    json: bool = False
    """Print what was done as JSON."""
    quiet: bool = False
    """No progress display."""


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Make a LeRobotDataset v3 of a data set of any layout."""

    data: Data
    """A data set of any layout."""
    out: str
    """The new data set."""
    episodes: tuple[int, ...] = ()
    """Only these, counted from 0."""
    fps: float = 0.0
    """Frames a second, where the data does not say, or says it wrongly."""
    task: str = ""
    """The instruction of episodes without one."""
    size: tuple[int, int] = (0, 0)
    """Height and width of the new pictures; 0 0 keeps them."""
    codec: Literal["h264", "av1"] = "h264"
    """Of pictures that are encoded; videos that can be copied are."""
    crf: int = 23
    """Quality of encoded pictures; lower is better and larger."""
    gop: int = 2
    """Frames from one key frame to the next."""
    json: bool = False
    """Print what was done as JSON."""
    quiet: bool = False
    """No progress display."""


@dataclass(frozen=True)
class View:
    """One episode as a page of its own: video, signals and language in step; or as a recording for Rerun."""

    data: Data
    """A data set of any layout."""
    episode: int = 0
    """Which, counted from 0."""
    out: str = "episode.html"
    """The page (.html), or a Rerun recording (.rrd; needs rerun-sdk)."""
    columns: tuple[str, ...] = ()
    """The signals drawn; the default is the action and the state."""
    width: int = 320
    """Widest picture on the page."""
