#!/usr/bin/env python3
"""Builds the documentation site: python tools/site/build.py FOLDER

`FOLDER/html/index.html` is its first page; it opens without a server. Needs `tools/site/requirements.txt`. Pages stay where they are in the
repository, so that their links hold on a forge and here alike; files that they link to come along.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

from links import ROOT, links, pages


def for_python_markdown(text):
    """The page as Python-Markdown wants it, where forges are more generous."""
    fence, before, lines = False, "", []
    for line in text.split("\n"):
        if line.lstrip().startswith("```"):
            # Of a fence's words the language alone.
            line = line if fence else re.sub(r"^( *```\w*).*", r"\1", line)
            fence = not fence
        elif not fence and re.match(r"[-*] |\d+\. ", line) and before.strip() and not re.match(r"[-*] |\d+\. |  ", before):
            lines.append("")
        elif not fence and line.startswith("|"):
            line = re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", "|"), line)
        lines.append(line)
        before = line
    return "\n".join(lines)


def stage(folder):
    """Copies pages, and what they link to."""
    shutil.rmtree(folder, ignore_errors=True)
    ours = set(pages())
    for page in ours:
        there = folder / page.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        text = for_python_markdown(page.read_text(encoding="utf-8"))
        for target in {target for _, target in links(page) if not target.startswith("#")}:
            linked = (page.parent / target.partition("#")[0]).resolve()
            hidden = any(part.startswith(".") for part in linked.relative_to(ROOT).parts)
            if linked.is_dir() or hidden or (linked.suffix == ".md" and linked not in ours):
                # Forges alone show these.
                text = re.sub(rf"\[([^\]]*)\]\({re.escape(target)}\)", r"\1", text)
            elif linked.suffix != ".md":
                copy = folder / linked.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(linked, copy)
        there.write_text(text, encoding="utf-8")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1]).resolve()
    stage(folder / "pages")
    shutil.copytree(ROOT / "tools/site/theme", folder / "theme", dirs_exist_ok=True)
    decisions = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/decisions/*.md"))]
    settings = (ROOT / "tools/site/zensical.toml").read_text(encoding="utf-8")
    settings = settings.replace('["docs/decisions/*.md"]', json.dumps(decisions))
    missing = [page.relative_to(ROOT) for page in pages() if f'"{page.relative_to(ROOT)}"' not in settings]
    if missing:
        sys.exit(f"tools/site/zensical.toml: not in the table of contents: {', '.join(map(str, missing))}")
    (folder / "zensical.toml").write_text(settings, encoding="utf-8")
    shutil.rmtree(folder / "html", ignore_errors=True)
    program = pathlib.Path(sys.executable).with_name("zensical")
    subprocess.run([program, "build", "--clean", "--strict", "--config-file", folder / "zensical.toml"], check=True)


if __name__ == "__main__":
    main()
