"""Runs every command of docs/reproduce.md, in order and in small: a rehearsal of the paper's run on a plain CPU.

The commands stand on that page and nowhere else. This program reads them there, changes the values in CHANGES, adds the
options in RULES that make a step small, makes small inputs in the place of downloads, and prints all of this. In the
middle of one distillation it kills every process and runs the same line again. Interrupted, it goes on where it was.

python scripts/rehearsal.py --work FOLDER [--from LINE] [--only LINE ...]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "reproduce.md"
INPUTS = Path(__file__).with_name("rehearsal_inputs.py")

# Values of the page that are others in small: those of options, and words that stand by themselves.
CHANGES = {
    "--nproc-per-node": "2",  # processes that speak gloo on the CPU, in the place of GPUs
    "--device": "cpu",
    "--workers": "1",
    "--geometry-weights": "stand-ins/weights-0-0-1",  # DUSt3R's, whose stand-in looks up what is exact
    "teacher-run/model:50": "teacher-run/model:4",
    "ViewCrafter=model:50": "ViewCrafter=model:4",
}


@dataclass(frozen=True)
class Rule:
    """What is done for the lines of the page that begin so.

    Attributes:
        start: the words they begin with, torchrun left out.
        adds: of our commands: options that the page does not give, which make the step small.
        makes: of downloads: which of the inputs is made in their place; none where another line's was enough.
    """

    start: str
    adds: str = ""
    makes: str = ""


_RUN = "--device cpu --batch 2 --picture-every 3"
_STUDENT = "--init-steps 2 --match-steps 3 --critic-steps 2 --ode-pairs 4 --ode-steps 8"
_HELD_OUT = "--held-out.every 2 --held-out.clips 2 --held-out.teacher-steps 4"
RULES = (
    Rule("hf download Drexubery/ViewCrafter_25_sparse", makes="teacher"),
    Rule("curl -L -o DUSt3R.pth", makes="dust3r"),
    Rule("curl -L -O https://raw.githubusercontent.com/DL3DV-10K"),
    Rule("for K in", makes="dl3dv"),
    Rule("curl -L -O https://storage.googleapis.com/gresearch/refraw360/360_v2.zip", makes="mip-360"),
    Rule("curl -L -O https://storage.googleapis.com/gresearch/refraw360/360_extra_scenes.zip"),
    Rule("curl -L -O https://repo-sam.inria.fr", makes="tandt"),
    Rule("fvgen convert", "--config small.yaml"),
    Rule("fvgen prepare", "--size 128x64"),
    Rule("fvgen data", "--device cpu"),
    Rule("fvgen train viewcrafter-512", f"{_RUN} --steps 4 --held-every 2"),
    Rule("fvgen distill viewcrafter-512", f"{_RUN} {_STUDENT} {_HELD_OUT}"),
    Rule("fvgen distill viewcrafter-512-lora", f"{_RUN} {_STUDENT} {_HELD_OUT} --accumulate 2"),
    Rule("fvgen plot"),
    Rule("fvgen export"),
    Rule("fvgen generate", "--device cpu"),
    Rule("fvgen evaluate", "--device cpu --size 192x128"),
    Rule("fvgen tables"),
)
BESIDES = ("photos", "outside")  # inputs that the page expects without a line that gets them
KILLED = Path("runs/fvgen")  # the output of the line whose processes are killed ...
KILLED_ADDS = "--save-every 4"  # ... after one of its checkpoints


class Failed(Exception):
    """Something did not hold; the message says what."""


def documented(page: str) -> list[str]:
    """The commands of a page's run: those in fenced blocks without a language, each on one line, without comments."""
    parts = [block.partition("\n") for block in page.split("```")[1::2]]
    blocks = [text.replace("\\\n", " ") for language, _, text in parts if not language]
    lines = [" ".join(f" {line}".partition(" #")[0].split()) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def is_ours(line: str) -> bool:
    """Whether a documented line is a command of fvgen, perhaps under torchrun; all others are downloads."""
    return line.startswith(("fvgen ", "torchrun "))


def rule_for(line: str) -> Rule:
    """The rule of a documented line.

    Raises:
        Failed: there is none, or more than one.
    """
    words = line.partition(" -m ")[2] if line.startswith("torchrun ") else line
    found = [rule for rule in RULES if words.startswith(rule.start) and words[len(rule.start) :][:1] in " /"]
    if len(found) != 1:
        raise Failed(f"{len(found)} rules in {Path(__file__).name} for a line of {PAGE.name}: {line}")
    return found[0]


def in_small(line: str) -> str:
    """What is run in the place of a documented line of ours: all of its options, some with another value, and more.

    Raises:
        Failed: an option to be added is there already.
    """
    words, before = [], ""
    for word in shlex.split(line):
        option = before if before.startswith("--") else ""
        words.append(CHANGES.get(option, word if word.startswith("--") else CHANGES.get(word, word)))
        before = word
    adds = f"{rule_for(line).adds} {KILLED_ADDS if output_of(line) == KILLED else ''}".split()
    both = sorted({word for word in adds if word.startswith("--")} & set(words))
    if both:
        raise Failed(f"{both[0]} is documented: its value in small belongs into CHANGES: {line}")
    return shlex.join([*words, *adds])


def output_of(command: str) -> Path | None:
    """What a command writes, relative to the folder it runs in."""
    words = shlex.split(command)
    return Path(words[words.index("--output") + 1]) if "--output" in words else None


@dataclass(frozen=True)
class Begun:
    """A line that was begun: as documented, as it is run, and how long it took, if it came to its end."""

    line: str
    run: str
    seconds: float | None = None


class Rehearsal:
    """The lines of the page in one folder.

    ``rehearsal.json`` there remembers what was begun and what came to its end, ``logs/`` what it printed.

    Args:
        lines: documented.
        work: the folder.

    Raises:
        Failed: a line has no rule.
    """

    def __init__(self, lines: Sequence[str], work: Path) -> None:
        self.work = work.resolve()
        self.lines = [*(f"made besides: {name}" for name in BESIDES), *lines]
        self.runs = [in_small(x) if is_ours(x) else f"made here: {maker(x) or 'nothing'}" for x in self.lines]
        (self.work / "logs").mkdir(parents=True, exist_ok=True)
        self.memory = self.work / "rehearsal.json"
        known = json.loads(self.memory.read_text()) if self.memory.is_file() else []
        self.begun = [Begun(**entry) for entry in known]

    def forget(self, first: int) -> None:
        """Lines from this one on count as not begun; what they wrote is removed."""
        for entry in self.begun[first:]:
            self._remove_output(entry)
        self._remember(self.begun[:first])

    def _remember(self, begun: list[Begun]) -> None:
        self.begun = begun
        self.memory.write_text(json.dumps([asdict(entry) for entry in begun], indent=1) + "\n")

    def _remove_output(self, entry: Begun) -> None:
        output = output_of(entry.run) if is_ours(entry.line) else None
        path = (self.work / (output or "")).resolve()
        if output is not None and path.is_relative_to(self.work) and path != self.work:
            shutil.rmtree(path, ignore_errors=True)

    def go(self) -> None:
        """Run all lines that did not come to their end as they are now; one that was interrupted finds what it left.

        Raises:
            Failed: a line did.
        """
        now = list(zip(self.lines, self.runs))
        before = [(entry.line, entry.run) for entry in self.begun]
        self.forget(next((i for i, pair in enumerate(before) if i >= len(now) or pair != now[i]), len(before)))
        done = [entry for entry in self.begun if entry.seconds is not None]
        for number in range(len(done), len(now)):
            self._remember([*done, Begun(*now[number])])
            done.append(Begun(*now[number], round(self.run_line(number), 1)))
            self._remember(list(done))

    def again(self, numbers: Sequence[int]) -> None:
        """Run only some lines, anew where they were run; the others count as they did.

        Raises:
            Failed: a line did.
        """
        for number in numbers:
            if number < len(self.begun):
                self._remove_output(self.begun[number])
            self.run_line(number)

    def run_line(self, number: int) -> float:
        """Run one line; how many seconds it took.

        Raises:
            Failed: it ended with an error.
        """
        line, run = self.lines[number], self.runs[number]
        print(f"\n[{number + 1}/{len(self.lines)}] {line}", flush=True)
        print("    as it is" if run == line else f"    {run}", flush=True)
        began, busy = time.monotonic(), _processors()
        if not is_ours(line):
            if maker(line):
                self._finish(self._start([sys.executable, str(INPUTS), maker(line), str(self.work)], number), number)
        else:
            first, *rest = shlex.split(run)
            module = {"fvgen": "fvgen", "torchrun": "torch.distributed.run"}[first]
            command = [sys.executable, "-m", module, *rest]
            kept = self._killed(command, number) if output_of(run) == KILLED else []
            self._finish(self._start(command, number), number)
            if kept:
                self._check_resumed(kept)
        seconds = time.monotonic() - began
        print(f"    {seconds:.0f} s, of processors {_processors() - busy:.0f} s", flush=True)
        return seconds

    def _log(self, number: int) -> Path:
        return self.work / "logs" / f"{number + 1:02d}.txt"

    def _start(self, command: Sequence[str], number: int) -> subprocess.Popen[bytes]:
        paths = [REPOSITORY / "src", REPOSITORY / "tests", self.work / "stand-ins"]  # the last two of the stand-in
        own = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
        own["PET_MASTER_PORT"] = str(_free_port())  # torchrun's: two rehearsals on one machine do not meet
        with self._log(number).open("wb") as log:
            return subprocess.Popen(
                command, cwd=self.work, env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _finish(self, process: subprocess.Popen[bytes], number: int) -> None:
        try:
            code = process.wait()
        except BaseException:
            _kill(process)
            raise
        if code:
            printed = self._log(number).read_text(errors="replace").splitlines()
            ours = [x for x in printed[:-40] if x.startswith("fvgen: error")]  # torchrun has much to say after it
            told = "\n".join(["", *ours, *printed[-40:]])
            raise Failed(f"line {number + 1} ended with code {code}: {self.lines[number]}{told}\n({self._log(number)})")

    def _killed(self, command: Sequence[str], number: int) -> list[dict[str, Any]]:
        """Begin a run, and kill all its processes at once when it has a checkpoint and has gone on from there.

        Returns:
            What it had logged up to that checkpoint.
        """
        folder = self.work / KILLED
        process = self._start(command, number)
        saved, logged = 0, list[dict[str, Any]]()
        while not saved or len(logged) <= saved:
            if process.poll() is not None:
                self._finish(process, number)
                raise Failed(f"line {number + 1} was at its end before it could be killed: let it save more often")
            time.sleep(0.05)
            saved, logged = _saved_step(folder), _logged(folder)
        count = _kill(process)
        print(f"    killed {count} processes at step {len(logged)}; the last checkpoint is of step {saved}", flush=True)
        return logged[:saved]

    def _check_resumed(self, kept: list[dict[str, Any]]) -> None:
        """The run went on from the checkpoint: what was logged before stands there still, every step once."""
        logged = _logged(self.work / KILLED)
        steps = [entry["step"] for entry in logged]
        if logged[: len(kept)] != kept or steps != list(range(len(steps))) or len(steps) <= len(kept):
            raise Failed(f"{KILLED} did not go on from its checkpoint of step {len(kept)}: it logged the steps {steps}")
        print(f"    went on from step {len(kept)} to the end, step {len(steps)}", flush=True)


def maker(line: str) -> str:
    """The input that is made in the place of a line that is not ours; none where there is nothing left to make."""
    return line.removeprefix("made besides: ") if line.startswith("made besides: ") else rule_for(line).makes


def _processors() -> float:
    """Seconds of processors that ended programs have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kill(process: subprocess.Popen[bytes]) -> int:
    """SIGKILL for a process and all that it started, wherever it put them; how many there were."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, row.split())) for row in listed.splitlines()]
    doomed = [process.pid]
    for pid in doomed:  # grows while it is walked through
        doomed += [child for child, parent in parents if parent == pid]
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    return len(doomed)


def _saved_step(folder: Path) -> int:
    """The step of the newest whole checkpoint of a run; 0 without one."""
    names = [path.name for path in (folder / "checkpoints").glob("step-*") if path.suffix != ".partial"]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def _logged(folder: Path) -> list[dict[str, Any]]:
    """The steps that a run has logged."""
    path = folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.is_file() else []


def _number(text: str, lines: Sequence[str]) -> int:
    """Which line is meant by its number, or by a part of it that only one has."""
    if text.isdigit() and 1 <= int(text) <= len(lines):
        return int(text) - 1
    found = [i for i, line in enumerate(lines) if text in line]
    if len(found) != 1:
        raise Failed(f"'{text}' is in {len(found)} lines: name one by its number, 1 to {len(lines)}, or by more of it")
    return found[0]


def main() -> int:
    """Rehearse; 0 only if every line ended well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder to run in; goes on with what is there")
    parser.add_argument(
        "--from", dest="first", metavar="LINE", help="anew from this line on: its number or a part of it"
    )
    parser.add_argument("--only", nargs="+", metavar="LINE", help="only these lines, anew")
    arguments = parser.parse_args()
    try:
        rehearsal = Rehearsal(documented(PAGE.read_text(encoding="utf-8")), arguments.work)
        print(f"The lines of {PAGE.relative_to(REPOSITORY)} in {rehearsal.work}. In small are")
        for word, value in CHANGES.items():
            print(f"    {word} -> {value}")
        print("added is")
        for rule in RULES:
            if rule.adds:
                print(f"    {rule.start}: {rule.adds}")
        print(f"    for {KILLED}, which is killed on the way: {KILLED_ADDS}")
        if arguments.only:
            rehearsal.again([_number(text, rehearsal.lines) for text in arguments.only])
            return 0
        if arguments.first:
            rehearsal.forget(_number(arguments.first, rehearsal.lines))
        rehearsal.go()
    except KeyboardInterrupt:
        print("rehearsal: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except Failed as failure:
        print(f"rehearsal: {failure}", file=sys.stderr)
        return 1
    print(f"\n{sum(entry.seconds or 0 for entry in rehearsal.begun) / 60:.0f} minutes\n")
    print((rehearsal.work / "tables" / "tables.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
