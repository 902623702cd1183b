"""ViewCrafter's published checkpoints: their keys, their configuration, conversion both ways."""

from typing import TYPE_CHECKING

from fvgen.lazy import exported

if TYPE_CHECKING:
    from fvgen.models.viewcrafter.convert import Choice, from_viewcrafter, to_viewcrafter

__all__ = ["Choice", "from_viewcrafter", "to_viewcrafter"]

__getattr__ = exported(__name__, dict.fromkeys(__all__, "fvgen.models.viewcrafter.convert"))
