"""What every family of generated inputs shares: a row of the table, and how melo is asked."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

# The three outcomes that are right, and the one that is not.
EQUAL, REFUSED, WARNED, WRONG = "equal", "refused by name", "answered with a warning", "WRONG"


@dataclass
class Row:
    """One input and what came of it."""

    kind: str  # the kind of fault that it probes, a heading of the table
    name: str  # the input, in a few words
    peer: str  # what the other tool makes of it
    verdict: str  # one of the four above
    said: str = ""  # melo's words, where it refused or warned


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


@dataclass
class Melo:
    """The binary under test."""

    binary: Path

    def __call__(self, *arguments: object, cwd: Path | None = None) -> Answer:
        done = subprocess.run([self.binary, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300)
        return Answer(done.returncode, done.stdout, done.stderr)
