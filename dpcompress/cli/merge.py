"""``dpcompress merge``: the fine-tuned network becomes the shallow one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcompress.cli.files import OUTPUT, Json, PlanFile, WeightsOutput
from dpcompress.cli.output import emit

if TYPE_CHECKING:
    from torch import fx

    from dpcompress.blueprint import Plan
    from dpcompress.settings import DataOptions, ModelOptions, Options

_CHECK_IMAGES = 16


def merge(
    model: Annotated[ModelOptions, Options("model", "model_args")],
    plan: PlanFile,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            metavar="FILE|default",
            help="Weights of the linearized network, as finetune or your own loop wrote "
            "them. The original's own can be merged, too.",
        ),
    ],
    data: Annotated[DataOptions | None, Options(panel="Check on real images too")],
    output: WeightsOutput,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            help="Where the proof goes. Without it: certificate.json beside the output.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
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
    from dpcompress.cli.loading import load_images
    from dpcompress.files import replacing
    from dpcompress.graph import merge as merge_network
    from dpcompress.models import Origin, save_weights
    from dpcompress.settings import changed

    decision = Plan.from_json(plan.read_bytes(), plan)
    known = changed(model, weights=weights)
    network, original = _linearized(known, decision)
    images = None
    if data is not None and decision.input is not None:
        images = load_images(known, data, decision.input).test.first(_CHECK_IMAGES)
    merged, proof = merge_network(network, images)
    certificate = certificate or output.parent / "certificate.json"
    origin = Origin(form="merged", original=original, plan=decision.digest)
    with replacing(certificate) as temporary:  # no proof without what it proves
        temporary.write_text(proof.to_json(), encoding="utf-8")
        save_weights(output, merged.state_dict(), origin, model=model.model)
    facts: dict[str, Any] = {
        "output": str(output),
        "certificate": str(certificate),
        "layers_before": decision.boundaries[-1],
        "layers": len(decision.spans),
        "params_before": sum(p.numel() for p in network.parameters()),
        "params": sum(p.numel() for p in merged.parameters()),
        "difference": proof.network_random.model_dump(),
        "difference_on_data": proof.network_real and proof.network_real.model_dump(),
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


def _linearized(model: ModelOptions, plan: Plan) -> tuple[fx.GraphModule, str | None]:
    """The linearized network with its weights, and the digest of its original's."""
    from dpcompress.graph import linearize
    from dpcompress.models import (
        load_model,
        load_weights,
        require_origin,
        weights_digest,
    )

    weights = str(model.weights)
    if weights == "default":
        pretrained = load_model(model.model, weights, model.model_args)
        return linearize(pretrained, plan), weights_digest(pretrained.state_dict())
    network = linearize(load_model(model.model, None, model.model_args), plan)
    origin = require_origin(weights, form=("linearized", "original"), plan=plan.digest)
    load_weights(network, weights)
    return network, None if origin is None else origin.original
