"""``dpcompress compress``: the whole job, resumable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpcompress.cli.asked import Asked
from dpcompress.cli.files import Json, RunFolder
from dpcompress.cli.output import emit, progress_bar
from dpcompress.cli.results import print_result
from dpcompress.cli.runs import new_run, refuse_without_model
from dpcompress.errors import UsageError

if TYPE_CHECKING:
    from dpcompress.settings import Settings


def compress(asked: Asked[Settings], output: RunFolder, json: Json = False) -> None:
    """Make a network shallower until it fits a latency budget; say what it cost.

    Times every span of layers on the engine, scores what each activation is worth, picks
    the best plan that is measured to be within the budget, fine-tunes, merges and
    exports. Killed at any moment, the same command goes on where it stopped.

    A machine may be faster or slower from one minute to the next. A budget such as 70%
    is about the ratio to the original, both measured at the same time; one in ms is
    about the machine as it was when the table was measured.

    \b
    Examples:
      dpcompress compress -o RUN
          the built-in example: MobileNetV2 on handwritten digits, trained first
      dpcompress compress torchvision:resnet18 --weights mine.safetensors \\
          --data photos/ --budget 70% -o RUN
    """
    from dpcompress.pipeline import compress
    from dpcompress.settings import EXAMPLE, Settings, read_settings, seeded

    stored = output / "run.json"
    settings: Settings | None
    if "model" in asked.given:
        settings = new_run(asked)
    elif not stored.exists():
        refuse_without_model(asked, "--seed", "--latency", "--measure", "--no-measure")
        example = asked.build(EXAMPLE)
        settings = seeded(example, example.seed)
    else:
        refuse_without_model(asked, "--seed")
        settings, seed = None, read_settings(stored, Settings).seed
        if "seed" in asked.given and asked.build(EXAMPLE).seed != seed:
            raise UsageError(
                f"{output} holds a run with another seed.", "Choose another."
            )
    result = compress(settings, output, progress_bar)
    if json:
        emit(result.model_dump(mode="json"))
    else:
        print_result(result, output)
