#!/usr/bin/env python3
"""Walks the guides as a reader would: every `sh` block runs, and what is shown as output comes.

    python3 tools/site/check.py target/debug/melo                         all guides, in the order of the table of contents
    python3 tools/site/check.py target/debug/melo --folder F cluster.md   one, in a folder that an earlier run left

A guide is one shell: variables and servers of a block are there in the next. All guides share one folder. Fences:

    ```sh                       runs; a failing command ends the guide
    ```sh needs storescu        runs where the program is installed
    ```sh norun: why            cannot run here
    ```text output              each line has come from the block before it, but for digits and spaces; `…` stands for others

Ports that guides name are exchanged for free ones.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "guides"
#: What guides name.
PORTS = ("8080", "11112", "4242")
#: Time after which a guide hangs.
LIMIT_S = 1800
#: Written before the output of each block.
MARK = "\x1e"
#: Characters of output that a failure shows.
TAIL = 3000


class Failed(Exception):
    pass


def in_order():
    """Names of the guides in the table of contents."""
    nav = tomllib.loads((ROOT / "tools/site/zensical.toml").read_text())["project"]["nav"]
    found = re.findall(r"docs/guides/([\w.-]+\.md)", repr(nav))
    if missing := {path.name for path in GUIDES.glob("*.md")} - set(found):
        sys.exit(f"tools/site/zensical.toml: not in the table of contents: {', '.join(sorted(missing))}")
    return found


def blocks(path):
    """Line, info string and text of each fenced block."""
    text = path.read_text(encoding="utf-8")
    for found in re.finditer(r"^```([^\n`]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start()) + 1, found[1].strip(), found[2]


def exchanged():
    """A free port for each that guides name."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    of = {port: str(server.getsockname()[1]) for port, server in zip(PORTS, held, strict=True)}
    for server in held:
        server.close()
    return of


def plain(line):
    """A line but for what differs between machines."""
    return re.sub(r"\s+", " ", re.sub(r"\d+", "0", line)).strip()


def walk(guide, folder, environment):
    """Runs a guide's blocks in one shell; returns what was not run."""
    ports, left_out, script, shown, last = exchanged(), [], ["set -euo pipefail"], [], None
    for line, info, text in blocks(guide):
        where = f"{guide.relative_to(ROOT)}:{line}"
        language, _, rest = info.partition(" ")
        if language == "sh" and rest.startswith("norun: "):
            left_out.append(f"{where}: {rest[7:]}")
            last = None
        elif language == "sh" and rest.startswith("needs ") and not shutil.which(rest[6:], path=environment["PATH"]):
            left_out.append(f"{where}: needs {rest[6:]}")
            last = None
        elif language == "sh" and (not rest or rest.startswith("needs ")):
            script += [f"printf '{MARK}%s\\n' '{where}'", text]
            last = where
        elif language == "sh":
            raise Failed(f"{where}: `{info}` is none of: sh, sh needs PROGRAM, sh norun: WHY")
        elif info == "text output" and last:
            shown.append((last, where, text))
    environment = {**environment, "MELO_SERVE_LISTEN": f"127.0.0.1:{ports['8080']}"}
    shell = re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: ports[found[0]], "\n".join(script))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        child = subprocess.Popen(["bash", "-c", shell], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=said,
                                 stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = child.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            status = f"no end within {LIMIT_S} s"
        finally:
            # Servers that the guide left behind, too.
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        said.seek(0)
        came = said.read()
    parts = [part.partition("\n") for part in came.split(MARK)]
    if status != 0:
        raise Failed(f"{parts[-1][0]}: exit status {status}\n{parts[-1][2][-TAIL:]}")
    of = {where: text for where, _, text in parts}
    for block, where, text in shown:
        lines = {plain(line) for line in of[block].splitlines()}
        for line in text.splitlines():
            if line.strip() not in ("", "…") and plain(line) not in lines:
                raise Failed(f"{where}: {block} does not print\n{line}\nbut\n{of[block][-TAIL:]}")
    return left_out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("melo", type=pathlib.Path)
    parser.add_argument("guides", nargs="*", help="names in docs/guides [default: all]")
    parser.add_argument("--folder", type=pathlib.Path, help="folder to work in, which stays")
    arguments = parser.parse_intermixed_args()
    names = arguments.guides or in_order()
    with tempfile.TemporaryDirectory(prefix="melo-guides-") as scratch:
        folder = arguments.folder or pathlib.Path(scratch) / "work"
        tools = pathlib.Path(scratch) / "bin"
        tools.mkdir()
        (tools / "melo").symlink_to(arguments.melo.resolve(strict=True))
        folder.mkdir(exist_ok=True)
        for path in GUIDES.glob("*.py"):
            shutil.copy(path, folder)
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "MELO_PACKED_CACHE": "off", "no_proxy": "127.0.0.1"}
        for name in names:
            began = time.monotonic()
            try:
                left_out = walk(GUIDES / name, folder, environment)
            except Failed as error:
                sys.exit(str(error))
            print(f"{name}: as it says, {time.monotonic() - began:.0f} s", *(f"  not run: {what}" for what in left_out), sep="\n", flush=True)


if __name__ == "__main__":
    main()
