"""``dpcompress merge``: the fine-tuned network becomes the shallow one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dpcompress.cli.options import (
    CheckData,
    Crop,
    Json,
    Mean,
    Model,
    ModelArgs,
    PlanFile,
    Resize,
    Std,
)
from dpcompress.cli.output import emit

_CHECK_IMAGES = 16


def merge(
    model: Model,
    plan: PlanFile,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            metavar="FILE|default",
            help="Weights of the linearized network, as finetune or your own loop wrote "
            "them. The original's fit too.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The merged weights (safetensors).")
    ],
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            help="Where the proof goes. Without it: certificate.json beside the output.",
            show_default=False,
        ),
    ] = None,
    model_args: ModelArgs = None,
    data: CheckData = None,
    resize: Resize = None,
    crop: Crop = None,
    mean: Mean = None,
    std: Std = None,
    json: Json = False,
) -> None:
    """Merge every span of a plan into one convolution, and prove that nothing changed.

    The merged network is compared with the unmerged one in double and single precision,
    span by span, on random images and on those of --data. If they differ by more than
    rounding, nothing is written (exit 6).

    \b
    Example:
      dpcompress merge torchvision:mobilenet_v2 --plan plan.json \\
        --weights ft.safetensors -o merged.safetensors
    """
    from dpcompress.blueprint import Plan
    from dpcompress.cli.trained import Preparation, load_images
    from dpcompress.files import replacing
    from dpcompress.graph import linearize
    from dpcompress.graph import merge as merge_network
    from dpcompress.models import (
        Origin,
        load_model,
        load_weights,
        require_origin,
        save_weights,
        weights_digest,
    )
    from dpcompress.models.origin import Form

    decision = Plan.from_json(plan.read_bytes(), plan)
    pretrained = weights if weights == "default" else None
    as_loaded = load_model(model, pretrained, dict(model_args or ()))
    network = linearize(as_loaded, decision)
    if pretrained:
        original: str | None = weights_digest(as_loaded.state_dict())
    else:
        forms: tuple[Form, ...] = ("linearized", "original")
        found = require_origin(weights, form=forms, plan=decision.digest)
        original = found.original if found is not None else None
        load_weights(network, weights)
    images = None
    if data is not None and decision.input is not None:
        preparation = Preparation(resize, crop, mean, std)
        real = load_images(model, weights, decision.input, data, preparation)
        images = real.test.first(_CHECK_IMAGES)
    merged, proof = merge_network(network, images)
    certificate = certificate or output.parent / "certificate.json"
    origin = Origin(form="merged", original=original, plan=decision.digest)
    with replacing(certificate) as temporary:  # no proof without what it proves
        proof.write(temporary)
        save_weights(output, merged.state_dict(), origin, model=model)
    facts = {
        "output": str(output),
        "certificate": str(certificate),
        "layers_before": decision.boundaries[-1],
        "layers": len(decision.spans),
        "params_before": sum(p.numel() for p in network.parameters()),
        "params": sum(p.numel() for p in merged.parameters()),
        "difference": asdict(proof.network_random),
        "difference_on_data": proof.network_real and asdict(proof.network_real),
    }
    if json:
        emit(facts)
        return
    print(
        f"{facts['layers_before']} layers became {facts['layers']}, "
        f"{facts['params_before']:,} parameters {facts['params']:,}. Merged and unmerged "
        f"differ by {proof.network_random.float64:.1e} (double precision) and "
        f"{proof.network_random.float32:.1e} (single), relative to the largest output.\n"
        f"{output}\n{certificate}"
    )
