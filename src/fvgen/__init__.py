"""fvgen: a few photos of a place in, dense consistent novel views out, in four denoising steps."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fvgen.pipeline import NovelViewPipeline

__all__ = ["NovelViewPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "NovelViewPipeline":  # lazy: `import fvgen` must not import torch
        from fvgen.pipeline import NovelViewPipeline

        return NovelViewPipeline
    raise AttributeError(f"module 'fvgen' has no attribute {name!r}")
