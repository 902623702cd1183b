"""Gaussians as SPZ (Niantic's packed format, about a tenth of a PLY), written by the library gsply."""

import math
from pathlib import Path

from fvgen.errors import UserError
from fvgen.reconstruction.gaussians import Gaussians

_POSITION_BITS = 23  # of a coordinate, besides its sign
_MOST_FRACTION_BITS = 20


def check_spz() -> None:
    """Complain at once where the library is absent.

    Raises:
        UserError: it is.
    """
    try:
        import gsply  # noqa: F401
    except ImportError:
        raise UserError("SPZ files need the library gsply: pip install 'fvgen[spz]', or write a .ply") from None


def write_spz(path: str | Path, gaussians: Gaussians) -> None:
    """Write Gaussians as SPZ version 3; lossy: 8 bits for colours, opacities and scales, 24 for coordinates.

    Coordinates get as many binary places as the scene's extent leaves.

    Raises:
        UserError: the library is absent.
    """
    check_spz()
    from gsply import GSData
    from gsply.spz import write_spz as write

    plain = {name: value.detach().float().cpu() for name, value in gaussians.parameters().items()}
    data = GSData(
        means=plain["means"].numpy(),
        scales=plain["log_scales"].numpy(),
        quats=(plain["quaternions"] / plain["quaternions"].norm(dim=1, keepdim=True)).numpy(),
        opacities=plain["opacity_logits"].numpy(),
        sh0=plain["sh"][:, 0].numpy(),
        shN=plain["sh"][:, 1:].numpy(),
    )
    farthest = max(1.0, float(plain["means"].abs().max())) if len(gaussians) else 1.0
    whole = math.floor(math.log2(farthest)) + 1
    write(path, data, version=3, fractional_bits=max(1, min(_MOST_FRACTION_BITS, _POSITION_BITS - whole)))
