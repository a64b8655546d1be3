"""Every test runs offline, on one thread, and with the shape annotations of the losses switched on."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

install_import_hook(["heedful.losses", "heedful.returns"], "beartype.beartype")

import torch  # noqa: E402 (the hook must come first)

torch.set_num_threads(1)
