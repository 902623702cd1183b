"""Options of the trainer. Light: imports no torch."""

from dataclasses import dataclass

from fvgen.errors import UserError


@dataclass(frozen=True)
class EngineConfig:
    """How a run is carried out; none of it changes what is learnt but for rounding."""

    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, or cuda:N; under torchrun each process takes its own."""

    bf16: bool = False
    """Compute in bfloat16 where it matters little; weights, moments, losses and schedules stay float32."""

    accumulate: int = 1
    """Parts that a batch is computed in, one after the other; their gradients are averaged. Changes memory and time,
    not what is learnt."""

    recompute: bool = False
    """Keep only the inputs of each stage of the UNet and compute the rest again for the backward pass: less memory."""

    save_every: float = 120.0
    """Seconds between checkpoints."""

    keep: int = 2
    """Checkpoints kept, the newest ones."""

    log_every: int = 1
    """Steps between lines of log.jsonl."""

    picture_every: int = 0
    """Steps between pictures of the same clip; 0 makes none."""

    tensorboard: bool = False
    """Also write TensorBoard events; needs the extra `train`."""

    prefetch: int = 2
    """Batches made ahead of time."""

    nonfinite_limit: int = 20
    """Gradients in a row that may be infinite or NaN; each such update is skipped and counted."""

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.keep < 1 or self.log_every < 1:
            raise UserError("`accumulate`, `keep` and `log_every` are at least 1")
