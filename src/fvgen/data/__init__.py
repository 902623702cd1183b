"""Training pairs: clips and the guides that a model is shown of them, made, written to tars, read again."""

from typing import TYPE_CHECKING

from fvgen.lazy import exported

if TYPE_CHECKING:
    from fvgen.data.farm import prepare_pairs
    from fvgen.data.pairs import Pair, make_pair, procedural_pair
    from fvgen.data.reader import PairShards
    from fvgen.data.recipe import Flaws, PrepareRecipe
    from fvgen.data.samples import Sample
    from fvgen.data.shards import write_manifest, write_scene

__all__ = [
    "Flaws",
    "Pair",
    "PairShards",
    "PrepareRecipe",
    "Sample",
    "make_pair",
    "prepare_pairs",
    "procedural_pair",
    "write_manifest",
    "write_scene",
]

__getattr__ = exported(
    __name__,
    {
        "prepare_pairs": "fvgen.data.farm",
        **dict.fromkeys(("Pair", "make_pair", "procedural_pair"), "fvgen.data.pairs"),
        "PairShards": "fvgen.data.reader",
        **dict.fromkeys(("Flaws", "PrepareRecipe"), "fvgen.data.recipe"),
        "Sample": "fvgen.data.samples",
        **dict.fromkeys(("write_manifest", "write_scene"), "fvgen.data.shards"),
    },
)
