"""RLDS, as TensorFlow Datasets writes it: one tf.train.Example an episode. TensorFlow is not needed.

A feature of a step is stored flat, `steps/observation/image`, all frames of the episode one after another;
`features.json`, where it is there, says the shape of a frame. DROID's names become those of its LeRobot port; elsewhere
`observation/a/b` becomes `observation.a.b` (`observation.images.*` for pictures) and `action` stays `action`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import Episodes
from heedful.data.episodes.loaded import Loaded, LoadedEpisodes, decoded, droid_columns, text
from heedful.data.tfrecord import Value, parse_example, read_record, record_places
from heedful.errors import HeedfulError
from heedful.model_folder import read_json

Array = NDArray[Any]
DROID_FPS = 15.0
FPS = 10.0
"""Frames a second where nothing says it: RLDS has no field for it; the loader's user can say `--fps`."""
DROID_CAMERAS = {
    "wrist_image_left": "observation.images.wrist_left",
    "exterior_image_1_left": "observation.images.exterior_1_left",
    "exterior_image_2_left": "observation.images.exterior_2_left",
}
PICTURE = (b"\xff\xd8\xff", b"\x89PNG")
STEPS = "steps/"
META = "episode_metadata/"


def recognises(path: Path) -> bool:
    """Whether TFRecord files are at `path`: a folder with them, or one such file."""
    return bool(_files(path))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if ".tfrecord" in path.name else []
    found = sorted(p for p in path.glob("*.tfrecord*") if p.is_file())
    # TFDS keeps versions in folders of their own: droid_100/1.0.0.
    return found or sorted(p for p in path.glob("*/*.tfrecord*") if p.is_file())


def open_folder(path: Path) -> Episodes:
    """Open RLDS data. Raises HeedfulError naming file and record where one is damaged."""
    files = _files(path)
    if len({file.parent for file in files}) > 1:
        told = ", ".join(sorted({str(file.parent) for file in files}))
        raise HeedfulError(f"{path} holds several versions: open one of {told}")
    places = [(file, place) for file in files for place in record_places(file)]
    shapes = _shapes(files[0].parent / "features.json")
    if not places:
        raise HeedfulError(f"{path} holds no episodes")
    first = parse_example(read_record(*places[0], f"{path}: episode 0"), f"{path}: episode 0")
    droid = f"{STEPS}observation/exterior_image_1_left" in first or any(
        "action_dict/" in name for name in first
    )

    def load(i: int) -> Loaded:
        where = f"{path}: episode {i}"
        file, place = places[i]
        return _load(parse_example(read_record(file, place, where), where), shapes, droid, where)

    return LoadedEpisodes(
        path,
        "RLDS (TFRecord), DROID" if droid else "RLDS (TFRecord)",
        len(places),
        load,
        fps=DROID_FPS if droid else FPS,
        robot_type="panda" if droid else "",
    )


def _load(example: Mapping[str, Value], shapes: Mapping[str, Any], droid: bool, where: str) -> Loaded:
    steps = {n.removeprefix(STEPS): v for n, v in example.items() if n.startswith(STEPS)}
    length = len(steps.get("is_first", steps.get("is_last", steps.get("reward", ()))))
    if not length:
        raise HeedfulError(f"{where} has no steps: is_first, is_last and reward are missing or empty")
    columns: dict[str, Array] = {}
    pictures: dict[str, Any] = {}
    tasks: list[str] = []
    action: dict[str, Array] = {}
    state: dict[str, Array] = {}
    for name, values in steps.items():
        shaped = _shaped(values, shapes.get(name), length, f"{where}, {name}")
        if isinstance(shaped, list) and shaped[0].startswith(PICTURE):
            pictures[_camera(name, droid)] = decoded(shaped)
        elif isinstance(shaped, list):
            told = [text(value, f"{where}, frame {k}, {name}") for k, value in enumerate(shaped)]
            if "language_instruction" in name:
                tasks += [t for t in dict.fromkeys(told) if t.strip()]
            columns[_column(name, droid)] = np.array(told, dtype=object)
        elif droid and name.startswith("action_dict/"):
            action[name.removeprefix("action_dict/")] = shaped
        elif droid and name.startswith("observation/"):
            state[name.removeprefix("observation/")] = shaped
        else:
            columns[_column(name, droid)] = shaped
    columns |= droid_columns(action, state)
    meta = _meta(example, where)
    return Loaded(length, tuple(dict.fromkeys(tasks)), columns, pictures, meta)


def _column(name: str, droid: bool) -> str:
    if droid and name == "action":
        return "action.original"
    return name.replace("/", ".")


def _camera(name: str, droid: bool) -> str:
    short = name.removeprefix("observation/")
    known = DROID_CAMERAS.get(short) if droid else None
    return known or f"observation.images.{short.replace('/', '.')}"


def _shaped(values: Value, told: Any, length: int, where: str) -> Array | list[bytes]:
    """A step's feature with an axis for the frames in front."""
    shape, kind, encoding = told if told else (None, None, "none")
    if isinstance(values, list) and encoding in ("bytes", "zlib") and shape is not None:
        raw = [zlib.decompress(v) if encoding == "zlib" else v for v in values]
        values = np.concatenate([np.frombuffer(v, dtype=np.dtype(kind)) for v in raw])
    if isinstance(values, list):
        if len(values) != length:
            raise HeedfulError(f"{where} has {len(values)} entries for {length} frames")
        return values
    if len(values) % length:
        raise HeedfulError(f"{where} has {len(values)} numbers, which are no whole frames of {length}")
    size = len(values) // length
    if shape is not None and int(np.prod(shape)) != size:
        raise HeedfulError(f"{where} has {size} numbers a frame; features.json says {tuple(shape)}")
    if kind == "bool":
        values = values.astype(bool)
    if shape == () or (shape is None and size == 1):
        return values
    return values.reshape(length, *(shape or (size,)))


def _meta(example: Mapping[str, Value], where: str) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    for name, values in example.items():
        if name.startswith(META):
            short = name.removeprefix(META).replace("/", ".")
            listed: Sequence[Any] = (
                [text(v, f"{where}, {name}") for v in values] if isinstance(values, list) else values.tolist()
            )
            if len(listed):
                meta[short] = listed[0] if len(listed) == 1 else list(listed)
    path = meta.get("file_path")
    if isinstance(path, str) and ("/success/" in path or "/failure/" in path):
        meta.setdefault("success", "/success/" in path)
    return meta


def _shapes(file: Path) -> dict[str, tuple[tuple[int, ...], str, str]]:
    """(shape, dtype, encoding) of each step feature that features.json describes."""
    if not file.is_file():
        return {}
    found: dict[str, tuple[tuple[int, ...], str, str]] = {}

    def look(node: Mapping[str, Any], name: str) -> None:
        if "featuresDict" in node:
            for key, inner in node["featuresDict"]["features"].items():
                look(inner, f"{name}/{key}" if name else key)
        elif "sequence" in node and not name.startswith(STEPS):
            look(node["sequence"]["feature"], name)
        elif "tensor" in node:
            told = node["tensor"]
            dimensions = told.get("shape", {}).get("dimensions", [])
            found[name] = (
                tuple(int(d) for d in dimensions),
                told.get("dtype", "float32"),
                told.get("encoding", "none"),
            )

    try:
        look(read_json(file), "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HeedfulError(f"{file} is not as TensorFlow Datasets writes it: {error!r}") from error
    return {n.removeprefix(STEPS): value for n, value in found.items() if n.startswith(STEPS)}


def features_json(shapes: Mapping[str, tuple[Sequence[int], str]]) -> str:
    """A features.json for steps of these features, {name: (shape, dtype)}, as TensorFlow Datasets writes it."""
    root: dict[str, Any] = {"featuresDict": {"features": {}}}
    for name, (shape, kind) in shapes.items():
        node = root
        *folders, last = name.split("/")
        for folder in folders:
            node = node["featuresDict"]["features"].setdefault(folder, {"featuresDict": {"features": {}}})
        told = {"shape": {"dimensions": [str(d) for d in shape]}, "dtype": kind, "encoding": "none"}
        node["featuresDict"]["features"][last] = {"tensor": told}
    steps = {"sequence": {"feature": root}}
    return json.dumps({"featuresDict": {"features": {"steps": steps}}})
