"""Several processes as one: who this one is, agreement between them, and torch's DDP round a loss.

torchrun sets RANK and WORLD_SIZE; without them a program is its own only process and nothing here costs
anything. What is exchanged is JSON in tensors, so no object is unpickled.
"""

from __future__ import annotations

import atexit
import datetime
import gc
import json
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from torch import Tensor, nn

# Rank 0 may sample for hours while the others wait for what it makes.
PATIENCE = datetime.timedelta(hours=24)


def rank_and_world() -> tuple[int, int]:
    """(this process's number, how many there are), from the environment that torchrun sets."""
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        raise HeedfulError("RANK and WORLD_SIZE must be whole numbers; torchrun sets them") from None
    if not 0 <= rank < world:
        raise HeedfulError(f"RANK={rank} does not fit WORLD_SIZE={world}; start the command with torchrun")
    return rank, world


def join_processes() -> tuple[int, int]:
    """Meet the other processes and return (rank, world).

    Raises `HeedfulError` when the number that met is not WORLD_SIZE: a launcher that silently starts one
    process must not pass for a distributed run.
    """
    rank, world = rank_and_world()
    if world == 1:
        return rank, world
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        if torch.cuda.is_available():
            local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
            if local >= there:
                raise HeedfulError(
                    f"torchrun started more processes here than there are GPUs ({there}); give "
                    f"--nproc_per_node {there}, or CUDA_VISIBLE_DEVICES= for processes on the CPU"
                )
            torch.cuda.set_device(local)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE
        )
        atexit.register(_leave)
    present = torch.ones((), device=_device())
    dist.all_reduce(present)
    if dist.get_world_size() != world or int(present) != world:
        raise HeedfulError(f"WORLD_SIZE is {world} but {int(present)} processes met; start with torchrun")
    return rank, world


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        # gloo's threads take the GIL to let go of tensors; while Python ends that aborts the process. They end with
        # the group, which ends with its last reference, and DDP holds some in cycles.
        gc.collect()
        dist.destroy_process_group()
        gc.collect()


def _device() -> str:
    import torch.distributed as dist

    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def gather(value: Any, world: int) -> list[Any]:
    """Every process's `value` (anything JSON holds), by rank, in every process."""
    if world == 1:
        return [value]
    import torch
    import torch.distributed as dist

    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(_device())
    sizes = [torch.zeros(1, dtype=torch.int64, device=data.device) for _ in range(world)]
    dist.all_gather(sizes, torch.tensor([len(data)], device=data.device))
    longest = int(max(sizes))
    parts = [torch.zeros(longest, dtype=torch.uint8, device=data.device) for _ in range(world)]
    dist.all_gather(parts, torch.nn.functional.pad(data, (0, longest - len(data))))
    return [json.loads(bytes(part[: int(size)].tolist())) for part, size in zip(parts, sizes, strict=True)]


def wrap(
    loss: Callable[[Any], tuple[Tensor, Mapping[str, Any]]], module: nn.Module, world: int
) -> tuple[Callable[[Any], tuple[Tensor, Mapping[str, Any]]], Callable[[], AbstractContextManager[Any]]]:
    """(the loss to call, a context in which gradients stay with this process).

    A loss calls its module by itself, so the module alone inside DDP would never be called through DDP and
    its gradients never exchanged. What goes inside is therefore a module whose `forward` is the loss. The
    loss of `None` is zero and touches every parameter: what a process without rows adds to a step.
    """
    import torch
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    if world == 1:
        return loss, nullcontext

    class LossModule(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, batch: Any) -> tuple[Tensor, Mapping[str, Any]]:
            if batch is not None:
                return loss(batch)
            parts = [p.sum() * 0 for p in self.module.parameters() if p.requires_grad]
            return torch.stack([part.to(parts[0].device, torch.float32) for part in parts]).sum(), {}

    # Processes may hold different numbers of micro-batches, so nothing may be exchanged per forward call
    # (buffers would be); and a loss need not use every parameter.
    with warnings.catch_warnings():
        # The option's new name, forward_sync_buffers, is not in every torch that is supported.
        warnings.simplefilter("ignore", FutureWarning)
        parallel = DistributedDataParallel(LossModule(), broadcast_buffers=False, find_unused_parameters=True)
    return parallel, parallel.no_sync
