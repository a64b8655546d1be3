"""Camera pictures as video: exact frames out, frames in, and files joined without encoding again.

A frame is found by its time, as LeRobot does it: frame k of an episode is the picture at `from_timestamp` + k / fps.
The index of a file (time, key frame or not, of every packet) comes from the container's own table, so no packet is
read for it. The decoder is asked to start at the last key frame before the wanted one, and it goes on from where it
stands where that is nearer. One thread: pictures this small decode slower with more.
"""

from __future__ import annotations

import bisect
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError

CODECS = {"h264": "libx264", "av1": "libsvtav1"}
OPEN_VIDEOS = 24
"""Decoders that stay open in a process."""


def pyav() -> Any:
    """PyAV. Raises HeedfulError with what to install where it is missing."""
    try:
        return import_module("av")
    except ImportError as error:
        raise HeedfulError("videos need PyAV: pip install av") from error


class Video:
    """A video file opened for frames at given times. Not for several threads.

    times: seconds of each picture, in order of showing, from the container's index; stamps: the same in its own units;
    keys: positions of those that need no other picture; reorders: whether pictures depend on later ones.
    """

    def __init__(self, path: Path) -> None:
        av = pyav()
        self.path = path
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "NONE"
            self._stream.codec_context.thread_count = 1
            self.reorders = bool(self._stream.codec_context.has_b_frames)
            self.stamps, self._keys = self._index()
        except FileNotFoundError as error:
            raise HeedfulError(f"{path}: there is no such video") from error
        except (av.error.FFmpegError, IndexError) as error:
            raise HeedfulError(f"{path} cannot be read as a video: {error}") from error
        self.keys = frozenset(self._keys.tolist())
        self.times: NDArray[Any] = self.stamps * float(self._stream.time_base)
        # Plain lists: a handful of look-ups is quicker in them than in arrays.
        self._times: list[float] = self.times.tolist()
        self._key_list: list[int] = self._keys.tolist()
        self._ahead: Iterator[Any] | None = None
        self._next = -1
        self._decoder: Any = None
        # Kept, and with one thread: a new one for each frame starts threads that cost more than the work.
        self._reformat = import_module("av.video.reformatter").VideoReformatter().reformat
        self._threads = {"threads": 1} if "threads" in (self._reformat.__doc__ or "") else {}

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def coding(self) -> tuple[Any, ...]:
        """Codec, its head, pixels, size and units of time."""
        told = self._stream.codec_context
        return (
            told.codec.name,
            bytes(told.extradata or b""),
            told.pix_fmt,
            told.width,
            told.height,
            self._stream.time_base,
        )

    def close(self) -> None:
        """Let the file go."""
        self._ahead = None
        if self._decoder is not None:
            self._decoder = None
            self._bytes.close()
        self._container.close()

    def _index(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(stamps of all pictures in order of showing, positions among them of the key frames)."""
        self._places: list[tuple[int, int]] = []
        entries = getattr(self._stream, "index_entries", ())  # PyAV before 16 has none
        if len(entries) and not self.reorders:
            kept = sorted((e for e in entries if not e.is_discard), key=lambda e: e.timestamp)
            found = [(e.timestamp, e.is_keyframe) for e in kept]
            self._places = [(int(e.pos), int(e.size)) for e in kept]
        else:  # the table holds decoding times only; where pictures are reordered the packets say more
            packets = self._container.demux(self._stream)
            found = [(p.pts, p.is_keyframe) for p in packets if p.pts is not None and not p.is_discard]
            self._container.seek(0, stream=self._stream)
        found.sort()
        stamps = np.array([stamp for stamp, _ in found], dtype=np.int64)
        return stamps, np.flatnonzero([key for _, key in found])

    def at(self, seconds: Sequence[float], tolerance: float) -> list[int]:
        """Positions of the pictures nearest to `seconds`; -1 where none is within `tolerance`."""
        times, last = self._times, len(self._times) - 1
        found = []
        for second in seconds:
            k = bisect.bisect_left(times, second)
            if k > last or (k and second - times[k - 1] <= times[k] - second):
                k -= 1
            found.append(k if k >= 0 and abs(times[k] - second) <= tolerance else -1)
        return found

    def pictures(self, positions: Sequence[int]) -> NDArray[np.uint8]:
        """Pictures at `positions` of the file, uint8 RGB (n, H, W, 3). Raises HeedfulError naming file and position."""
        if len(positions) == 1:
            return self._picture(positions[0])[None]
        found = {position: self._picture(position) for position in sorted(set(positions))}
        return np.stack([found[position] for position in positions])

    def _to_rgb(self, frame: Any) -> NDArray[np.uint8]:
        return self._reformat(frame, format="rgb24", **self._threads).to_ndarray()

    def _picture(self, position: int) -> NDArray[np.uint8]:
        key = self._key_list[bisect.bisect_right(self._key_list, position) - 1] if self._key_list else 0
        onward = key <= self._next <= position
        try:
            frame = self._direct(position, key, onward) if self._places else None
            if frame is None:
                frame = self._through_container(position, key, onward)
        except pyav().error.FFmpegError as error:
            self._ahead, self._next = None, -1
            raise HeedfulError(f"{self.path}: picture {position} is damaged: {error}") from error
        if frame is None:
            self._ahead, self._next = None, -1
            raise HeedfulError(f"{self.path}: picture {position} of {len(self)} cannot be decoded")
        self._next = position + 1
        return self._to_rgb(frame)

    def _direct(self, position: int, key: int, onward: bool) -> Any:
        """The picture from its packet and those it needs, found by the index: the demuxer's work is saved.

        None, and never tried again, where this codec gives pictures later than their packets.
        """
        if self._decoder is None:
            self._decoder, self._bytes = self._own_decoder()
            onward = False
        frame = None
        for k in range(self._next if onward else key, position + 1):
            start, size = self._places[k]
            packet = self._packet(self._bytes[start : start + size])
            packet.pts = k
            frame = next(iter(self._decoder.decode(packet)), frame)
        if frame is None or frame.pts != position:
            self._places, self._next = [], -1
            return None
        return frame

    def _own_decoder(self) -> tuple[Any, mmap.mmap]:
        av = pyav()
        told = self._stream.codec_context
        decoder = av.CodecContext.create(told.codec.name, "r")
        decoder.extradata = told.extradata
        decoder.thread_type, decoder.thread_count = "NONE", 1
        self._packet = av.Packet
        with self.path.open("rb") as file:
            return decoder, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _through_container(self, position: int, key: int, onward: bool) -> Any:
        if self._ahead is None or not onward:
            self._container.seek(int(self.stamps[key]), stream=self._stream, backward=True)
            self._ahead = iter(self._container.decode(self._stream))
        wanted = int(self.stamps[position])
        for frame in self._ahead or ():
            if frame.pts is not None and frame.pts >= wanted:
                return frame if frame.pts == wanted else None
        return None


class Videos:
    """Open videos, the last used ones kept: opening costs more than a frame."""

    def __init__(self, keep: int = OPEN_VIDEOS) -> None:
        self._open: OrderedDict[Path, Video] = OrderedDict()
        self._keep = keep
        self._process = os.getpid()

    def __getitem__(self, path: Path) -> Video:
        if self._process != os.getpid():
            # A decoder's state and file position must not be shared with the process that this one was forked from.
            self._open, self._process = OrderedDict(), os.getpid()
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        video = self._open[path] = Video(path)
        if len(self._open) > self._keep:
            self._open.popitem(last=False)[1].close()
        return video

    def forget(self, path: Path) -> None:
        """Let a file go."""
        if path in self._open and self._process == os.getpid():
            self._open.pop(path).close()

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            self._open.popitem()[1].close()


class VideoWriter:
    """Encode pictures, one after the other, into an MP4 whose frame k is shown at k / fps."""

    def __init__(
        self, path: Path, fps: float, *, codec: str = "h264", crf: int = 23, gop: int = 2, preset: str = ""
    ) -> None:
        if codec not in CODECS:
            raise HeedfulError(f"video codec {codec!r} is unknown; there are {', '.join(CODECS)}")
        self.path, self.count, self.codec, self.gop, self.crf = path, 0, codec, gop, crf
        self._rate = Fraction(fps).limit_denominator(1001)
        options = {"crf": str(crf), "g": str(gop)}
        if codec == "h264":
            options |= {"preset": preset or "veryfast", "bf": "0", "tune": "fastdecode", "threads": "1"}
        else:
            options |= {"preset": preset or "12", "svtav1-params": "lp=1:fast-decode=1"}
        self._options = options
        self._container: Any = None
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Add an RGB picture, uint8 (H, W, 3); all of one size. Raises HeedfulError for another."""
        av = pyav()
        if self._container is None:
            self._container = self._start(picture.shape)
        if picture.dtype != np.uint8 or picture.shape != self._shape:
            raise HeedfulError(
                f"{self.path}: picture {self.count} is {picture.dtype} {picture.shape}, not uint8 {self._shape}"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = self.count
        frame.time_base = 1 / self._rate
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self.count += 1

    def _start(self, shape: tuple[int, ...]) -> Any:
        if len(shape) != 3 or shape[2] != 3:
            raise HeedfulError(f"{self.path}: a picture must be (height, width, 3), not {shape}")
        self._shape = shape
        container = pyav().open(str(self.path), "w", format="mp4")
        self._stream = container.add_stream(CODECS[self.codec], rate=self._rate, options=self._options)
        self._stream.height, self._stream.width = shape[:2]
        odd = shape[0] % 2 or shape[1] % 2
        self._stream.pix_fmt = "yuv444p" if odd and self.codec == "h264" else "yuv420p"
        self._stream.time_base = 1 / self._rate
        self._stream.thread_type = "NONE"
        return container

    def close(self) -> dict[str, Any]:
        """Write what is left and close the file; LeRobot's facts of a video."""
        if self._container is None:
            return {}
        for packet in self._stream.encode():
            self._container.mux(packet)
        self._container.close()
        return {
            "video.height": self._shape[0],
            "video.width": self._shape[1],
            "video.codec": self.codec,
            "video.pix_fmt": self._stream.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": float(self._rate) if self._rate.denominator > 1 else int(self._rate),
            "video.channels": 3,
            "has_audio": False,
            "video.g": self.gop,
            "video.crf": self.crf,
        }

    def abort(self) -> None:
        """Close without caring for the file."""
        if self._container is not None:
            self._container.close()
            self._container = None


class ReadyVideo:
    """A video made elsewhere, in the place of a `VideoWriter`'s."""

    def __init__(self, path: Path, fps: float, count: int) -> None:
        self.path, self.count = path, count
        av = pyav()
        with av.open(str(path)) as container:
            codec = container.streams.video[0].codec_context
            self._facts = {
                "video.height": codec.height,
                "video.width": codec.width,
                "video.codec": codec.name.removeprefix("lib").replace("dav1d", "av1"),
                "video.pix_fmt": codec.pix_fmt,
                "video.is_depth_map": False,
                "video.fps": int(fps) if float(fps).is_integer() else fps,
                "video.channels": 3,
                "has_audio": False,
            }

    def close(self) -> dict[str, Any]:
        """LeRobot's facts of the video."""
        return self._facts

    def abort(self) -> None:
        """Nothing is open."""


def cut_video(video: Video, ranges: Sequence[tuple[int, int]], fps: float, out: Path) -> bool:
    """Copy the pictures of `ranges` (positions in the file, end not included) into `out`, without encoding.

    False, and nothing written, where a range does not begin at a key frame or pictures depend on later ones; the
    pictures must then be encoded anew.
    """
    av = pyav()
    if video.reorders or any(a not in video.keys for a, _ in ranges):
        return False
    rate = Fraction(fps).limit_denominator(1001)
    wanted = {int(video.stamps[k]) for a, b in ranges for k in range(a, b)}
    with av.open(str(video.path)) as source, av.open(str(out), "w", format="mp4") as made:
        stream = source.streams.video[0]
        target = made.add_stream_from_template(stream, opaque=True)
        target.time_base = stream.time_base
        count = 0
        for a, b in ranges:
            source.seek(int(video.stamps[a]), stream=stream, backward=True)
            last = int(video.stamps[b - 1])
            for packet in source.demux(stream):
                if packet.pts is None or packet.pts > last:
                    break
                if packet.pts not in wanted or packet.pts < int(video.stamps[a]):
                    continue
                packet.pts = packet.dts = round(Fraction(count) / rate / stream.time_base)
                packet.stream = target
                made.mux(packet)
                count += 1
    if count != sum(b - a for a, b in ranges):
        raise HeedfulError(f"{video.path}: {count} pictures were copied of {ranges}")
    return True


def coding(path: Path) -> tuple[Any, ...]:
    """What must be the same in videos whose packets are to be in one file: a file says it once, in its head.

    Raises HeedfulError where it is no video.
    """
    video = Video(path)
    try:
        return video.coding
    finally:
        video.close()


def join_videos(parts: Sequence[Path], counts: Sequence[int], fps: float, out: Path) -> None:
    """Write `parts` one after another into `out`; packets are copied, nothing is encoded again.

    Part j starts at the sum of the `counts` before it, in frames. Raises HeedfulError where a part holds other than
    its count of pictures or was encoded otherwise than the first (see `coding`), naming it.
    """
    av = pyav()
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(out), "w", format="mp4") as joined:
        stream: Any = None
        first = 0
        for path, count in zip(parts, counts, strict=True):
            if coding(path) != coding(parts[0]):
                raise HeedfulError(f"{path} was encoded otherwise than {parts[0]}; they cannot be one file")
            with av.open(str(path)) as part:
                source = part.streams.video[0]
                if stream is None:
                    stream = joined.add_stream_from_template(source, opaque=True)
                    stream.time_base = source.time_base
                packets = [p for p in part.demux(source) if p.dts is not None]
                if len(packets) != count:
                    raise HeedfulError(f"{path} has {len(packets)} pictures; its table has {count}")
                start = round(Fraction(first) / rate / source.time_base)
                shift = start - min(p.pts for p in packets)
                for packet in packets:
                    packet.pts += shift
                    packet.dts += shift
                    packet.stream = stream
                    joined.mux(packet)
            first += count
