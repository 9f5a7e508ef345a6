"""What a time is measured on: engine, device, precision, threads and batch size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from dpcompress.errors import UsageError
from dpcompress.runner.engine import Engine, engine_class, parse_engine
from dpcompress.runner.machine import cores


@dataclass(frozen=True)
class Target:
    """An engine and how it runs. The fields say in words what they are, for --help.

    Raises:
        UsageError: no such engine, or less than one thread or image.
    """

    engine: str = field(
        default="onnxruntime",
        metadata={
            "description": "Inference engine: onnxruntime, openvino, torch or tensorrt. "
            "TensorRT has options, after a colon: "
            "tensorrt:workspace_mb=512,tactics=internal (docs/tensorrt.md)."
        },
    )
    device: Optional[str] = field(
        default=None,
        metadata={
            "description": "cpu or cuda, for engines that run on both. Without it: the "
            "engine's usual one."
        },
    )
    precision: str = field(
        default="fp32",
        metadata={
            "description": "Numbers that the engine computes in: fp32; some have "
            "others, such as tensorrt tf32 and fp16."
        },
    )
    threads: Optional[int] = field(
        default=None,
        metadata={
            "ge": 1,
            "description": "Threads of the engine. Without it: all cores.",
        },
    )
    batch: int = field(
        default=1,
        metadata={"ge": 1, "description": "Images per inference."},
    )

    def __post_init__(self) -> None:
        parse_engine(self.engine)
        if self.threads is not None and self.threads < 1:
            raise UsageError(
                f"{self.threads} threads cannot run anything.", "Ask for 1 or more."
            )
        if self.batch < 1:
            raise UsageError(
                f"There is no batch of {self.batch} images.", "Ask for 1 or more."
            )

    @property
    def most_copies(self) -> int:
        """The `Engine.most_copies` of the engine, which need not be installed here."""
        return int(engine_class(parse_engine(self.engine)[0]).most_copies)

    def open(self) -> Engine:
        """Start the engine with these settings.

        Raises:
            UsageError: the engine has no such option.
            EngineUnavailable: not installed, or without this device or precision.
        """
        name, options = parse_engine(self.engine)
        make = engine_class(name)
        unknown = [option for option in options if option not in make.options]
        if unknown:
            raise UsageError(
                f"{name} has no option {unknown[0]!r}.",
                f"Choose from: {', '.join(make.options) or 'none'}.",
            )
        engine = make(
            threads=self.threads or cores(),
            precision=self.precision,
            device=self.device or make.device,
            **options,
        )
        assert isinstance(engine, Engine)
        return engine
