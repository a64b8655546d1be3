"""A speaker in a folder: config.json says what it is made of and holds its bank, model.safetensors its weights and
the bank's embeddings, so that it needs no sentence encoder to speak. A frozen vision model stays in a folder of its
own."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from heedful.atomic import write_folder
from heedful.errors import HeedfulError
from heedful.model_folder import read_json
from heedful.policies.actions.observe import ObservationSpace
from heedful.policies.instruct import Speaker, SpeakerMaking, build

FORMAT = "heedful-speaker"
BANK = "bank"


def save_speaker(speaker: Speaker, folder: str | Path) -> Path:
    """Write a speaker that `load_speaker` reads back; a folder that is there is replaced."""
    target = Path(folder)
    weights = {
        f"module.{k}": v.detach().cpu().contiguous()
        for k, v in speaker.module.state_dict().items()
        if not k.startswith("frozen.")
    }

    def fill(beside: Path) -> None:
        text = json.dumps({"format": FORMAT, **asdict(speaker.making)}, indent=1, ensure_ascii=False)
        (beside / "config.json").write_text(text + "\n", encoding="utf-8")
        save_file({**weights, BANK: speaker.embeddings.contiguous()}, beside / "model.safetensors")

    write_folder(target, fill)
    return target


def load_speaker(folder: str | Path) -> Speaker:
    """A speaker that `save_speaker` wrote. Raises HeedfulError when the folder holds none, or weights of another."""
    path = Path(folder)
    said = read_json(path / "config.json")
    if said.pop("format", None) != FORMAT:
        raise HeedfulError(f"{path} holds no speaker of heedful's (config.json has no format {FORMAT!r})")
    try:
        making = SpeakerMaking(
            ObservationSpace.from_json(said.pop("observations")), tuple(said.pop("bank")), **said
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise HeedfulError(f"{path / 'config.json'} is damaged: {error}; save the speaker again") from error
    file = path / "model.safetensors"
    try:
        weights = load_file(file)
        embeddings = weights.pop(BANK)
        speaker = build(making, embeddings=embeddings)
        own = {k.removeprefix("module."): v for k, v in weights.items()}
        missing, unexpected = speaker.module.load_state_dict(own, strict=False)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise HeedfulError(f"cannot read {file}: {str(error).splitlines()[0]}") from error
    wrong = unexpected or [key for key in missing if not key.startswith("frozen.")]
    if wrong or len(embeddings) != len(making.bank):
        raise HeedfulError(f"{file} is of another speaker: {', '.join(sorted(wrong)[:3]) or 'its bank'}")
    return speaker
