"""``fvgen tables``: the paper's tables from results of ``fvgen evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fvgen.errors import UserError
from fvgen.files import must_exist
from fvgen.outputs import output_folder, prepare_output


@dataclass(frozen=True)
class Tables:
    """Fill the tables of FVGen's paper with evaluated systems, the paper's numbers beside ours.

    Results of the protocol fvgen-5x14 fill table 1, of fvgen-2x14 tables 2 and 3. FOLDER receives tables.md and
    tables.tex; under each table is said what its numbers rest on.
    """

    results: Annotated[Positional[tuple[Path, ...]], arg(metavar="RESULTS...")]
    """Folders that fvgen evaluate wrote, of Mip-NeRF 360, of Tanks and Temples or of both."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER")]
    """The folder to write, new or empty."""

    rows: Annotated[tuple[str, ...], arg(metavar="ROW=SYSTEM...")] = ()
    """Which evaluated system fills a row: of DepthSplat, MVSplat360, ViewCrafter, VC+DMD2, VC+CausVid, no_init,
    gan_init, reverse_kl and Ours. Default: systems of that name, with any number of steps; for ViewCrafter
    viewcrafter-512 and teacher too, for VC+DMD2 dmd2, for VC+CausVid causvid, for Ours fvgen."""

    datasets: Annotated[tuple[str, ...], arg(metavar="NAME=PAPER...")] = ()
    """What the paper calls an evaluated data set, mip-360 or TNT, where it was named otherwise."""

    def run(self) -> None:
        """Read, fill, write, print."""
        if not self.results:
            raise UserError("no results: name folders that fvgen evaluate wrote")
        must_exist(*self.results)
        prepare_output(self.output, inputs=self.results)
        rows, datasets = _named("--rows", self.rows), _named("--datasets", self.datasets)
        from fvgen.evaluation.paper import DATASETS, fill_tables, latex, markdown, read_source

        for name, paper in datasets.items():
            if paper not in DATASETS:
                raise UserError(f"--datasets {name}={paper}: the paper's are {' and '.join(DATASETS)}")
        sources = [read_source(path, datasets) for path in self.results]
        unknown = set(datasets) - {name for source in sources for name in source.dataset_names}
        if unknown:
            raise UserError(f"--datasets {min(unknown)}: no data set of these results is called so")
        tables = fill_tables(sources, rows)
        text = markdown(tables)
        with output_folder(self.output, inputs=self.results) as folder:
            (folder / "tables.md").write_text(text, encoding="utf-8")
            (folder / "tables.tex").write_text(latex(tables), encoding="utf-8")
        print(text)


def _named(option: str, texts: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` pairs, each name once."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise UserError(f"{option} {text}: write NAME=VALUE")
        if name in found:
            raise UserError(f"{option} {text}: {name} is there twice")
        found[name] = value
    return found
