"""The paper's tables from evaluated folders of two data sets: numbers, means, layout, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fvgen.cli.main import main
from fvgen.evaluation.paper import PAPER
from fvgen.evaluation.report import MEAN
from scene_copies import Copy

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo"
ROWS = ["--rows", "Ours=none", "ViewCrafter=completed-guide", "no_init=guide"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, the second darker; one folder of results for each with five views, one for both with two."""
    place = tmp_path_factory.mktemp("paper")
    copy = Copy(DEMO, 61, 128)
    copy.nerfstudio(place / "garden")
    copy.pictures = [picture.point(lambda v: v // 2) for picture in copy.pictures]
    copy.nerfstudio(place / "truck")
    mip, tnt = f"mip-360={place / 'garden'}", f"Tanks={place / 'truck'}"
    common = ["--size", "128x80", "--metrics", "psnr", "ssim_torchmetrics", "--baselines", "guide", "completed-guide"]
    common += ["--models", "none"]
    for out, scenes, protocol in (("mip", [mip], 5), ("tnt", [tnt], 5), ("two", [mip, tnt], 2)):
        assert main(["evaluate", *scenes, "--protocol", f"fvgen-{protocol}x14", *common, "-o", str(place / out)]) == 0
    return place


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def tables(place: Path, out: str, *names: str | Path, rows: list[str] = ROWS) -> int:
    folders = [str(place / name) for name in names]
    return main(["tables", *folders, *rows, "--datasets", "Tanks=TNT", "-o", str(place / out)])


def test_means_over_data_sets(place: Path) -> None:
    found = results(place / "two")
    (mip, tnt), mean = found["datasets"].values(), found["mean_of_datasets"]
    for system in ("guide", "completed-guide", "none"):
        for metric in ("psnr", "ssim_torchmetrics", "flicker"):
            expected = (mip[system]["mean"][metric] + tnt[system]["mean"][metric]) / 2
            assert mean[system]["mean"][metric] == pytest.approx(expected)
        assert mean[system]["images"] == 28
        assert mean[system]["seconds"] == pytest.approx((mip[system]["seconds"] + tnt[system]["seconds"]) / 2)
    assert mip["none"]["mean"]["psnr"] < tnt["none"]["mean"]["psnr"] - 3  # darker errors are smaller
    psnr = f"{mean['none']['mean']['psnr']:.2f}"
    for name in ("table.md", "table.tex", "index.html"):
        text = (place / "two" / name).read_text()
        assert MEAN in text
        assert psnr in text
    assert "mean_of_datasets" not in results(place / "mip")
    assert MEAN not in (place / "mip" / "table.md").read_text()


def test_every_table_has_ours_beside_the_papers(place: Path) -> None:
    assert tables(place, "all", "mip", "tnt", "two") == 0
    text = (place / "all" / "tables.md").read_text()
    first, second, third = re.split(r"(?m)^## Table \d", text)[1:]

    def line(part: str, *heads: str) -> list[str]:
        cells = [[c.strip(" *") for c in row.strip("| ").split(" | ")] for row in part.splitlines() if row[:1] == "|"]
        (found,) = [row for row in cells if row[: len(heads)] == list(heads)]
        return [cell.replace("*", "") for cell in found[len(heads) :]]

    for dataset, folder in (("mip-360", "mip"), ("TNT", "tnt")):
        (rows,) = results(place / folder)["datasets"].values()
        for row, system, numbers in (
            ("Ours", "none", ("16.28", "0.352", "5.1") if dataset == "mip-360" else ("18.72", "0.411", "5.0")),
            ("ViewCrafter", "completed-guide", ("16.35", "0.346", "66.3") if dataset == "mip-360" else None),
        ):
            psnr, ssim, lpips, fid, seconds = line(first, dataset, row)
            own = rows[system]["mean"]
            if numbers:
                assert psnr == f"{own['psnr']:.2f} [{numbers[0]}]"
                assert ssim == f"{own['ssim_torchmetrics']:.3f} [{numbers[1]}]"
                assert seconds == f"{rows[system]['seconds']:.1f} [{numbers[2]}]"
            assert re.fullmatch(r"\[\d\.\d{3}\]", lpips)  # not computed: the paper's alone
            assert re.fullmatch(r"\[\d+\.\d\d\]", fid)
        assert line(first, dataset, "DepthSplat")[0] in ("[11.23]", "[12.43]")
    both = results(place / "two")
    assert line(second, "TNT", "VC+CausVid") == ["[17.33]", "[0.405]", "[0.232]", "[24.92]"]
    assert line(second, "TNT", "Ours")[0] == f"{both['datasets']['Tanks']['none']['mean']['psnr']:.2f} [18.72]"
    for modules, system, paper in ((("✓", "✓", "✓"), "none", "17.50"), (("✗", "✓", "✓"), "guide", "8.62")):
        assert line(third, *modules)[0] == f"{both['mean_of_datasets'][system]['mean']['psnr']:.2f} [{paper}]"
    assert line(third, "✓", "✗", "✗") == ["[16.23]", "[0.369]", "[0.375]", "[21.48]"]
    for part, folders in ((first, ("mip", "tnt")), (second, ("two",)), (third, ("two",))):
        for folder in folders:
            assert f"index {results(place / folder)['index']['sha256'][:12]}" in part
        for fact in ("128x80", "Poses given", "SSIM is ssim_torchmetrics", "LPIPS was not computed", "Ours is none"):
            assert fact in part
    assert "Time: seconds per scene" in first
    assert "Time" not in second + third
    assert "Means of mip-360 and TNT" in third
    assert "In no row: guide" in first


def test_latex_is_balanced(place: Path) -> None:
    assert tables(place, "tex", "mip", "tnt", "two") == 0
    text = (place / "tex" / "tables.tex").read_text()
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    stack: list[str] = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if what == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    bodies = re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", text, re.S)
    assert [len(re.findall(r"\\\\$", body, re.M)) for _, body in bodies] == [9, 7, 5]
    for columns, body in bodies:
        for row in re.findall(r"(.*)\\\\$", body, re.M):
            assert len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1
    assert not re.search(r"(?<!\\)[_#%]", re.sub(r"(?m)^%.*", "", text))


def test_the_papers_ablation_is_the_mean_of_its_data_sets() -> None:
    """What Table 3's full model prints is the mean of Table 2's two, rounded: so all of it is read as means."""
    _, second, third = PAPER
    mip, tnt = second.rows[-1].numbers.values()
    for one, two, mean, step in zip(mip, tnt, third.rows[-1].numbers[""], (0.01, 0.001, 0.001, 0.01)):
        assert (one + two) / 2 == pytest.approx(mean, abs=step / 2 + 1e-9)


def test_part_of_the_results_fills_part_of_the_tables(place: Path) -> None:
    only = ["--rows", "Ours=none"]
    folder = str(place / "mip")
    assert main(["tables", folder, *only, "-o", str(place / "part")]) == 0
    text = (place / "part" / "tables.md").read_text()
    assert "Table 1" in text
    assert "Table 2" not in text
    assert re.search(r"\| TNT \| Ours \| \[18\.72\] \|", text)


def edited(place: Path, source: str, name: str, change: Any) -> Path:
    content = results(place / source)
    change(content)
    (place / name).mkdir(exist_ok=True)
    (place / name / "results.json").write_text(json.dumps(content))
    return place / name


def test_systems_are_found_by_their_names(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rename(name: str) -> Any:
        def change(content: dict[str, Any]) -> None:
            for rows in (content["systems"], *content["datasets"].values()):
                rows[name] = rows.pop("none")

        return change

    edited(place, "mip", "named", rename("fvgen:4"))
    assert main(["tables", str(place / "named"), "-o", str(place / "by-name")]) == 0
    assert "Ours is fvgen:4" in capsys.readouterr().out

    def both(content: dict[str, Any]) -> None:
        for rows in (content["systems"], *content["datasets"].values()):
            rows["fvgen:2"] = rows["fvgen:4"]

    edited(place, "named", "two-steps", both)
    assert main(["tables", str(place / "two-steps"), "-o", str(place / "x")]) == 2
    assert "row Ours could be fvgen:4 or fvgen:2: say --rows Ours=fvgen:4" in capsys.readouterr().err
    assert not (place / "x").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(protocol="pairs"), "protocol pairs fills none of the paper's tables"),
        (lambda c: c["poses"].update(poses="estimated"), "mip and other differ in their poses"),
        (lambda c: c["pictures"].update(size=[512, 320]), "mip and other differ in their pictures"),
        (lambda c: c["metrics"]["psnr"].update(definition="another"), "differ in their metrics"),
        (lambda c: c["systems"]["none"].update(seed=1), "none is not the same system in both (seed differs)"),
        (
            lambda c: c["datasets"]["mip-360"]["none"]["mean"].update(psnr=30.0),
            "mip and other score none on mip-360 differently: leave one of them out",
        ),
        (lambda c: c["splits"]["garden"].update(target=[1]), "mip and other ask for other frames of mip-360"),
        (lambda c: c.pop("splits"), "results.json: not the results of fvgen evaluate"),
        (lambda c: c["datasets"].update(x=c["datasets"].pop("mip-360")), "data set x is none of the paper's"),
    ],
)
def test_what_fits_nowhere_or_contradicts_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], change: Any, message: str
) -> None:
    edited(place, "mip", "other", change)
    assert main(["tables", str(place / "mip"), str(place / "other"), *ROWS[:2], "-o", str(place / "refused")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (place / "refused").exists()


def test_the_same_results_twice_are_no_contradiction(place: Path) -> None:
    edited(place, "mip", "other", lambda c: c["datasets"]["mip-360"]["none"].update(seconds=9.9))
    assert main(["tables", str(place / "mip"), str(place / "other"), *ROWS[:2], "-o", str(place / "twice")]) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["--rows", "Mine=none"], "--rows Mine: there is no such row in the paper's tables; choose of DepthSplat"),
        (["--rows", "Ours=other"], "--rows Ours=other: no such system where that row is; there are guide"),
        (["--rows", "Ours"], "--rows Ours: write NAME=VALUE"),
        (["--rows", "Ours=none", "Ours=guide"], "Ours is there twice"),
        ([], "no system fills a row by its name; there are guide, completed-guide, none"),
    ],
)
def test_wrong_rows(place: Path, capsys: pytest.CaptureFixture[str], rows: list[str], message: str) -> None:
    assert tables(place, "wrong", "tnt", rows=rows) == 2
    assert message in capsys.readouterr().err
    assert not (place / "wrong").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [("a=mip-360", "no data set of these results is called so"), ("mip-360=mip", "the paper's are mip-360 and TNT")],
)
def test_wrong_data_sets(place: Path, capsys: pytest.CaptureFixture[str], names: str, message: str) -> None:
    arguments = ["tables", str(place / "mip"), *ROWS[:2], "--datasets", names, "-o", str(place / "wrong")]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
