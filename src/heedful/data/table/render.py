"""MuJoCo without a screen: which OpenGL to use, and pictures of a model's cameras.

MuJoCo takes its OpenGL from MUJOCO_GL when it is first imported. Where that is not set, this module chooses: EGL where
there is a graphics card, OSMesa (on the CPU) where its library is there, else EGL with Mesa.
"""

from __future__ import annotations

import ctypes.util
import os
import sys
import weakref
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError

INSTALL = (
    "install OSMesa (Debian, Ubuntu: apt install libosmesa6; Fedora: dnf install mesa-libOSMesa) or a driver with EGL, "
    "and set MUJOCO_GL=osmesa or MUJOCO_GL=egl to choose one"
)


def choose_backend() -> str:
    """The OpenGL that MuJoCo is to use: MUJOCO_GL where it is set, else chosen by what this computer has."""
    given = os.environ.get("MUJOCO_GL", "").lower()
    if given or sys.platform != "linux":
        return given
    card = Path("/dev/nvidia0").exists() or any(Path("/dev/dri").glob("renderD*"))
    egl, osmesa = ctypes.util.find_library("EGL"), ctypes.util.find_library("OSMesa")
    if egl and card:
        return "egl"
    return "osmesa" if osmesa else "egl" if egl else ""


def mujoco() -> Any:
    """The package `mujoco`, set up to draw without a screen. Raises HeedfulError where it is missing."""
    if "mujoco" not in sys.modules:
        backend = choose_backend()
        if backend:
            os.environ["MUJOCO_GL"] = backend
            if "OpenGL" not in sys.modules and backend in ("egl", "osmesa"):
                os.environ["PYOPENGL_PLATFORM"] = backend
    try:
        return import_module("mujoco")
    except ImportError as error:
        raise HeedfulError(
            f"the simulated table needs MuJoCo ({error}): pip install 'heedful[robots]'"
        ) from error
    except (AttributeError, RuntimeError, OSError) as error:
        raise HeedfulError(f"MuJoCo finds no OpenGL ({error}): {INSTALL}") from error


class Pictures:
    """Draws the cameras of one model. One OpenGL context: use it in the thread that made it, and close it.

    size: (height, width) in pixels. shadows: prettier, and several times slower on a CPU.
    """

    def __init__(self, model: Any, size: tuple[int, int], *, shadows: bool = False) -> None:
        package = mujoco()
        height, width = size
        if not (0 < height <= 960 and 0 < width <= 1280):
            raise HeedfulError(f"pictures are at most 960 x 1280 pixels, not {height} x {width}")
        self._mujoco, self._model = package, model
        try:
            gl = _context_class()(width, height)
            # OpenGL's context and MuJoCo's, in a list that is emptied before the interpreter takes its modules apart,
            # which a context does not survive
            self._held = [gl]
            self._finish = weakref.finalize(self, _give_back, self._held)
            gl.make_current()
            self._held.append(package.MjrContext(model, package.mjtFontScale.mjFONTSCALE_100.value))
            package.mjr_setBuffer(package.mjtFramebuffer.mjFB_OFFSCREEN.value, self._held[1])
        except Exception as error:  # PyOpenGL and MuJoCo raise what they like here
            raise HeedfulError(
                f"no picture can be drawn with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r} "
                f"({type(error).__name__}: {error}): {INSTALL}"
            ) from error
        self._scene = package.MjvScene(model, maxgeom=400)
        self._options, self._camera = package.MjvOption(), package.MjvCamera()
        self._camera.type = package.mjtCamera.mjCAMERA_FIXED
        self._rect = package.MjrRect(0, 0, width, height)
        for flag in ("mjRND_SHADOW", "mjRND_REFLECTION", "mjRND_HAZE", "mjRND_FOG", "mjRND_SKYBOX"):
            self._scene.flags[getattr(package.mjtRndFlag, flag)] = shadows and flag == "mjRND_SHADOW"

    def draw(self, data: Any, cameras: Sequence[str]) -> list[NDArray[np.uint8]]:
        """Pictures of the cameras, each uint8 RGB (height, width, 3)."""
        if not self._finish.alive:
            raise HeedfulError("the table has been closed")
        gl, context = self._held
        gl.make_current()
        made: list[NDArray[np.uint8]] = []
        for camera in cameras:
            self._camera.fixedcamid = self._model.camera(camera).id
            self._mujoco.mjv_updateScene(
                self._model,
                data,
                self._options,
                None,
                self._camera,
                self._mujoco.mjtCatBit.mjCAT_ALL.value,
                self._scene,
            )
            self._mujoco.mjr_render(self._rect, self._scene, context)
            picture = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
            self._mujoco.mjr_readPixels(picture, None, self._rect, context)
            made.append(picture[::-1].copy())
        return made

    def close(self) -> None:
        """Give the context back."""
        self._finish()


def _give_back(held: list[Any]) -> None:
    gl, *contexts = held
    gl.make_current()
    for context in contexts:
        context.free()
    held.clear()  # the last reference, with which OpenGL's context frees itself


def _context_class() -> Any:
    """The OpenGL context of the chosen backend; also where somebody else imported MuJoCo first, with another choice."""
    backend = choose_backend()
    if backend in ("egl", "osmesa"):
        if "OpenGL" not in sys.modules:
            os.environ["PYOPENGL_PLATFORM"] = backend
        return import_module(f"mujoco.{backend}").GLContext
    found = import_module("mujoco.gl_context").GLContext
    if found is None:
        raise RuntimeError("MuJoCo has no OpenGL here")
    return found


def intrinsics(field: float, size: tuple[int, int]) -> NDArray[np.float64]:
    """(3, 3) camera matrix of a vertical field of view (degrees) and a picture of (height, width) pixels."""
    height, width = size
    focal = height / 2 / np.tan(np.radians(field) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def project(points: Any, pose: Any, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) pixels (column, row) of points (n, 3) in the base frame for a camera at `pose` (6,); NaN behind it."""
    from heedful.data.table.arm import rotation_of

    at = np.asarray(pose, np.float64)
    seen = (np.atleast_2d(points) - at[:3]) @ rotation_of(at[3:])
    depth = np.where(seen[:, 2:] > 1e-6, seen[:, 2:], np.nan)
    return (seen / depth) @ matrix[:2].T
