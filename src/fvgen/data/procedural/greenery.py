"""Ground, trees, bushes, rocks, hedges."""

import numpy as np

from fvgen.data.procedural.clutter import Maker, Prop
from fvgen.data.procedural.mesh import Array, Material, Place

Wave = tuple[Array, float, float]  # frequencies along x and z, phase, height


def tree(m: Maker, at: Place) -> None:
    """A bent trunk, branches, and leaves on cards; or a cone of needles."""
    high = m.between(2.0, 6.0)
    if m.chance(0.25):
        conifer(m, at, high)
        return
    t = np.linspace(0, 1, 6)
    bend = m.rng.normal(0, 0.08, 2) * high
    trunk = np.stack([bend[0] * t**2, t * high * 0.7, bend[1] * t**2], 1)
    bark, thick = m.looks.of("bark"), high * m.between(0.02, 0.045)
    m.mesh.tube(trunk, thick * (1 - 0.7 * t), bark, at, sides=8)
    leaves = [m.looks.cut("leaf", "spray") for _ in range(2)]
    for k in range(m.count(5, 9)):
        root = trunk[2 + k % 4]
        turn, reach = k * 2.4 + m.between(0, 1), high * m.between(0.15, 0.3)
        tip = root + np.array([np.cos(turn) * reach, reach * m.between(0.3, 1.0), np.sin(turn) * reach])
        m.mesh.tube(np.stack([root, (root + tip) / 2 + [0, 0.05 * high, 0], tip]), thick * np.array([0.4, 0.3, 0.1]),
                    bark, at, sides=5)  # fmt: skip
        for _ in range(m.count(2, 4)):
            size = high * m.between(0.18, 0.34)
            spot = tip + m.rng.normal(0, 0.06, 3) * high - [0, size / 2, 0]
            m.mesh.card(
                size, size, leaves[m.rng.integers(2)], at.moved(spot[0], spot[1], spot[2], m.between(0, 3.1)), bend=0.2
            )


def conifer(m: Maker, at: Place, high: float) -> None:
    """Cones of needles over one another on a stem."""
    m.mesh.tube(np.array([[0, 0, 0], [0, high, 0]]), 0.02 * high, m.looks.of("bark"), at)
    leaf, y = m.looks.of("leaf"), high * 0.12
    layers, wide = m.count(3, 6), high * m.between(0.18, 0.3)
    for k in range(layers):
        share = 1 - k / layers
        step = high * 0.85 / layers
        m.mesh.lathe(
            [(wide * share, y), (wide * share * 0.9, y + 0.03), (0.05 * wide, y + step * 1.5)], leaf, at, sides=11
        )
        y += step


def bush(m: Maker, at: Place) -> None:
    """A lumpy ball of leaves with sprays that stick out."""
    r = m.between(0.25, 0.8)
    m.mesh.ball((r, r * m.between(0.6, 1.1), r), m.looks.of("leaf"), at, bumps=0.14, n=13)
    leaves = m.looks.cut(str(m.rng.choice(["leaf", "leaf", "flower"])), "spray")
    for k in range(m.count(3, 7)):
        m.mesh.card(r * 1.5, r * 1.3, leaves, at.moved(y=r * 0.5, turn=k * 2.4).moved(z=r * 0.75), bend=0.3)


def rock(m: Maker, at: Place) -> None:
    """A displaced ball, half in the ground."""
    r = m.between(0.15, 0.9)
    radii = (r * m.between(0.7, 1.3), r * m.between(0.4, 0.9), r * m.between(0.7, 1.3))
    m.mesh.ball(radii, m.looks.of(str(m.rng.choice(["stone", "earth"]))), at.moved(y=-radii[1] * 0.6), bumps=0.17, n=15)


def herbs(m: Maker, at: Place) -> None:
    """Tufts of grass or flowers."""
    blades = m.looks.cut(str(m.rng.choice(["lawn", "leaf", "flower"])), str(m.rng.choice(["tuft", "tuft", "fronds"])))
    for _ in range(m.count(3, 9)):
        size = m.between(0.15, 0.6)
        spot = at.moved(m.rng.normal(0, 0.3), 0, m.rng.normal(0, 0.3), turn=m.between(0, 3.1))
        m.mesh.card(size, size, blades, spot, bend=0.2)


def hedge(m: Maker, at: Place, length: float) -> None:
    """A bumpy wall of leaves along the local x axis."""
    high, deep, n = m.between(0.5, 1.6), m.between(0.25, 0.5), max(8, int(length * 3))
    outline = np.array([[0, -1], [0.6, -1.05], [0.95, -0.7], [1, 0], [0.95, 0.7], [0.6, 1.05], [0, 1]])
    x = np.linspace(0, length, n)
    points = np.stack([np.broadcast_to(x, (7, n)), np.broadcast_to(outline[:, :1] * high, (7, n)),
                       np.broadcast_to(outline[:, 1:] * deep, (7, n))], -1)  # fmt: skip
    points = points + m.rng.normal(0, 0.035, points.shape)
    m.mesh.sheet(points, m.looks.of("leaf"), at, away=np.array([length / 2, high / 2, 0]))
    m.mesh.next_part(at, (0, 0, -deep), (length, high, deep))


def ground(m: Maker, size: float, rough: float, material: Material, flat: float, cells: int = 56) -> "Ground":
    """Rolling ground ``size`` across, flat within ``flat`` of the middle; returns its heights."""
    waves: list[Wave] = [(m.rng.normal(0, 1, 2) * 0.25 * 1.8**k, m.between(0, 6), rough * 0.55**k) for k in range(6)]
    result = Ground(waves, flat)
    # Finer cells near the middle, where the camera is.
    axis = np.linspace(-1, 1, cells + 1)
    axis = np.sign(axis) * np.abs(axis) ** 1.6 * size / 2
    x, z = np.meshgrid(axis, axis)
    points = np.stack([x, result.height(x, z), z], -1)
    normal_up = np.array([0.0, -1e3, 0.0])
    away = np.broadcast_to(normal_up, points.shape)
    metre = Material(**{**material.__dict__, "scale": 1.0})
    m.mesh.sheet(points, metre, Place(), away=away, reach=(size, size))
    uv = m.mesh._vertices[-1][2]
    uv[:] = np.stack([x, z], -1).reshape(-1, 2) / material.scale
    m.mesh.next_part(Place(), (0, 0, 0), (0, 0, 0), blocks=False)
    return result


class Ground:
    """Heights of rolling ground."""

    def __init__(self, waves: list[Wave], flat: float) -> None:
        self.waves, self.flat = waves, flat

    def height(self, x: Array | float, z: Array | float) -> Array:
        """Metres above the middle."""
        far = np.hypot(x, z)
        rise = sum(size * np.sin(w[0] * x + w[1] * z + phase) for w, phase, size in self.waves)
        return np.asarray(rise * np.clip((far - self.flat) / max(self.flat, 3.0), 0, 1))

    def at(self, x: float, z: float, turn: float = 0.0) -> Place:
        """A place on it, given in world x and z."""
        return Place((x, -float(self.height(x, -z)), z), turn)


PLANTS: tuple[Prop, ...] = (tree, tree, bush, bush, herbs, herbs, rock)
