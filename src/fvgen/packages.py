"""Optional packages: whether they are there is known before anything heavy is imported, and how to get them is said."""

import sys
from importlib.util import find_spec

from fvgen.errors import UserError

_OPTIONAL = {  # module: the package's name for pip, and the extra of fvgen that holds the tested versions of it
    "cv2": ("opencv-python-headless", "eval"),
    "gsplat": ("gsplat", "gs"),
    "ray": ("ray", "cluster"),
    "tensorboard": ("tensorboard", "train"),
    "viser": ("viser", "viewer"),
}
ESTIMATORS = {"dust3r": ("mini_dust3r", "mini-dust3r"), "da3": ("depth_anything_3", "depth-anything-3")}


def require(module: str, what: str, otherwise: str = "") -> None:
    """Refuse to go on without an optional package. It is looked for, not imported.

    Args:
        module: what would be imported.
        what: needs it, for the message.
        otherwise: what can be done instead.

    Raises:
        UserError: it is not installed, naming the command that installs it.
    """
    if not installed(module):
        package, extra = _OPTIONAL[module]
        then = f", or {otherwise}" if otherwise else ""
        raise UserError(f'{what} needs the package {package}: pip install "fvgen[{extra}]"{then}')


def require_inpainting() -> None:
    """Refuse to go on without OpenCV, which inpaints the baselines of an evaluation.

    Raises:
        UserError: as `require`.
    """
    require("cv2", "an inpainted baseline", "choose other `baselines`")


def require_renderer(name: str) -> None:
    """Refuse to go on without gsplat where it is the renderer; the others need no package.

    Raises:
        UserError: as `require`.
    """
    if name == "gsplat":
        require("gsplat", "`renderer` gsplat", "choose torch")


def require_estimator(*names: str) -> None:
    """Refuse to go on without the package of an estimator among ``names``; others need none.

    Raises:
        UserError: as `require`.
    """
    asked = [name for name in dict.fromkeys(names) if name in ESTIMATORS]
    if len(asked) == 1 and not installed(ESTIMATORS[asked[0]][0]):  # two exclude each other, which is told later
        raise UserError(f"{asked[0]} needs the package {ESTIMATORS[asked[0]][1]}: {estimator_command(asked[0])}")


def estimator_command(name: str) -> str:
    """What installs an estimator: its package without dependencies, most of which are for demos and training."""
    return f'pip install "fvgen[{name}]" && pip install --no-deps {ESTIMATORS[name][1]}'


def installed(module: str) -> bool:
    """Whether a module could be imported, without doing so."""
    return sys.modules[module] is not None if module in sys.modules else find_spec(module) is not None
