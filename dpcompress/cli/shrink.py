"""``dpcompress shrink``: DepthShrinker, resumable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpcompress.cli.asked import Asked
from dpcompress.cli.files import Json, RunFolder
from dpcompress.cli.output import console, emit, progress_bar
from dpcompress.cli.results import print_result
from dpcompress.cli.runs import new_run, refuse_without_model

if TYPE_CHECKING:
    from dpcompress.settings import ShrinkSettings


def shrink(asked: Asked[ShrinkSettings], output: RunFolder, json: Json = False) -> None:
    """Make a network shallower by DepthShrinker: learn which activations matter.

    Trains a mask for each activation (or block) together with the weights until K are on,
    lets the other activations fade out while the network is fine-tuned, merges, exports
    and times the result. Killed at any moment, the same command goes on where it stopped.

    \b
    Example:
      dpcompress shrink torchvision:mobilenet_v2 --model-args num_classes=10 \\
          --weights trained.safetensors --input 3x32x32 --data digits --keep 12 -o RUN
    """
    from dpcompress.pipeline import shrink

    settings = None
    if "model" in asked.given:
        settings = new_run(asked)
    else:
        refuse_without_model(asked)
    result = shrink(settings, output, progress_bar)
    if json:
        emit(result.model_dump(mode="json"))
        return
    print_result(result, output)
    console.print(f"{output / 'masks.png'}: the search", soft_wrap=True)
