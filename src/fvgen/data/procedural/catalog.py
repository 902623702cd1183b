"""All kinds of scenes by name."""

from collections.abc import Callable

import numpy as np

from fvgen.data.procedural import outdoors, rooms
from fvgen.data.procedural.setting import Made
from fvgen.data.textures import TextureBank

KINDS: dict[str, Callable[[np.random.Generator, TextureBank], Made]] = {
    "room": rooms.room,
    "tabletop": rooms.tabletop,
    "hall": rooms.hall,
    "shop": rooms.shop,
    "jumble": rooms.jumble,
    "street": outdoors.street,
    "garden": outdoors.garden,
    "wild": outdoors.wild,
    "town": outdoors.town,
    "ruin": outdoors.ruin,
}
SHARES = (0.22, 0.14, 0.08, 0.08, 0.08, 0.12, 0.1, 0.07, 0.04, 0.07)  # of all scenes
