#!/usr/bin/env python3
"""Looks at a report: screenshots at two widths, light and dark, and the printed pages, with checks that fail.

    python tools/report/screenshots.py report.html FOLDER

Needs Debian's `chromium` and `poppler-utils`, nothing else. Writes `phone.png`, `desktop.png`, `desktop-dark.png` in pieces of
the height of a few screens, `print.pdf` and its pages. Exits with 1 if at any width

- the page is wider than the window,
- two texts of one chart overlap, or one leaves its picture,
- a picture or a table is cut by the edge of its box without a way to scroll,

or if the printed report has a page that is all but empty. All parts that can be opened are open in the pictures.
"""

import argparse
import html
import json
import pathlib
import re
import subprocess
import sys
import tempfile

WIDTHS = {"phone": 390, "small phone": 360, "tablet": 820, "desktop": 1280}
# Widths that are checked without a picture.
UNSEEN = ["small phone", "tablet"]
# Height of one picture.
PIECE = 2400

# Run in the page, once with its own font and once with the widest of the usual ones: every finding as one line. Half a pixel
# is what rounding may do.
CHECK = """
const findings = [];
const name = svg => svg.querySelector('title') ? svg.querySelector('title').textContent.slice(0, 60) : 'a swatch';
for (const font of ['', '"DejaVu Sans", Verdana, sans-serif']) {
  document.body.style.fontFamily = font;
  const found = what => findings.push(font ? what + ' (wide font)' : what);
  const wide = document.scrollingElement.scrollWidth;
  if (wide > window.innerWidth) found(`the page is ${wide} pixels wide in a window of ${window.innerWidth}`);
  for (const svg of document.querySelectorAll('svg')) {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    for (const [i, [label, box]] of texts.entries()) {
      const outside = box.left < frame.left - 0.5 || box.right > frame.right + 0.5
        || box.top < frame.top - 0.5 || box.bottom > frame.bottom + 0.5;
      if (outside) found(`"${label}" leaves the picture "${name(svg)}"`);
      for (const [other, to] of texts.slice(i + 1)) {
        const apart = box.right <= to.left + 0.5 || to.right <= box.left + 0.5
          || box.bottom <= to.top + 0.5 || to.bottom <= box.top + 0.5;
        if (!apart) found(`"${label}" and "${other}" overlap in "${name(svg)}"`);
      }
    }
  }
  for (const box of document.querySelectorAll('svg.plot, table, img')) {
    const frame = box.getBoundingClientRect();
    const cut = frame.right > window.innerWidth + 0.5 || frame.left < -0.5;
    if (cut && !box.closest('.scroll')) found(`${box.tagName} is cut`);
    if (frame.width === 0 || frame.height === 0) found(`${box.tagName} is empty`);
  }
}
document.body.style.fontFamily = '';
document.body.setAttribute('data-findings', JSON.stringify(findings));
document.body.setAttribute('data-height', document.scrollingElement.scrollHeight);
"""


def chromium(*arguments):
    """Runs the browser on a profile of its own; returns what it printed."""
    with tempfile.TemporaryDirectory() as profile:
        command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                   f"--user-data-dir={profile}", "--virtual-time-budget=2000", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=180).stdout


def framed(page, width, height, top, folder, check):
    """A page that shows `page` in a frame of exactly this size: a window cannot be as narrow as a phone."""
    source = page.read_text(encoding="utf-8")
    opened = source.replace('<details class="task">', '<details class="task" open="open">')
    script = f"<script>addEventListener('load', () => {{ scrollTo(0, {top}); {CHECK if check else ''} }});</script>"
    inner = folder / "inner.html"
    inner.write_text(opened.replace("</body>", script + "</body>"), encoding="utf-8")
    outer = folder / "outer.html"
    outer.write_text(
        "<!DOCTYPE html><meta charset=utf-8><meta name=color-scheme content='light dark'>"
        "<style>body{margin:0}iframe{border:0;display:block}</style>"
        f"<iframe width={width} height={height} src=inner.html></iframe>"
        "<script>addEventListener('load', () => setTimeout(() => {"
        "  const body = document.querySelector('iframe').contentDocument.body;"
        "  for (const key of ['findings', 'height'])"
        "    document.body.setAttribute('data-' + key, body.getAttribute('data-' + key) || '');"
        "}, 300));</script>", encoding="utf-8")
    return outer.as_uri()


def attribute(dom, name):
    """What the page was asked to say about itself."""
    found = re.search(rf'data-{name}="([^"]*)"', dom)
    if not found or not found[1]:
        sys.exit(f"the browser did not answer: no data-{name}")
    return html.unescape(found[1])


def look(page, out, label, width, dark, folder):
    """Pictures of the whole page at one width; returns the findings."""
    mode = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    access = ["--allow-file-access-from-files"]
    address = framed(page, width, 900, 0, folder, check=True)
    dom = chromium(*mode, *access, f"--window-size={max(width, 600)},900", "--dump-dom", address)
    height = int(attribute(dom, "height"))
    for piece, top in enumerate(range(0, height, PIECE)):
        tall = min(PIECE, height - top)
        address = framed(page, width, tall, top, folder, check=False)
        chromium(*mode, *access, f"--window-size={width},{tall}", f"--screenshot={out / f'{label}-{piece:02}.png'}", address)
    return [f"{label}: {finding}" for finding in json.loads(attribute(dom, "findings"))]


def printed(page, out):
    """The printed pages; returns the findings."""
    pdf = out / "print.pdf"
    chromium("--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.resolve().as_uri())
    subprocess.run(["pdftoppm", "-r", "60", "-png", str(pdf), str(out / "print")], check=True)
    text = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], check=True, capture_output=True, text=True).stdout
    pages = text.split("\f")[:-1]
    return [f"print: page {number} is empty" for number, page in enumerate(pages, 1) if len(page.split()) < 8]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--checks-only", action="store_true", help="take no pictures")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for label, width in WIDTHS.items():
            if arguments.checks_only or label in UNSEEN:
                address = framed(arguments.page, width, 900, 0, folder, check=True)
                dom = chromium("--allow-file-access-from-files", "--window-size=1300,900", "--dump-dom", address)
                findings += [f"{label}: {finding}" for finding in json.loads(attribute(dom, "findings"))]
            else:
                findings += look(arguments.page, arguments.folder, label, width, False, folder)
        if not arguments.checks_only:
            findings += look(arguments.page, arguments.folder, "desktop-dark", WIDTHS["desktop"], True, folder)
        findings += printed(arguments.page, arguments.folder)
    for finding in findings:
        print(finding)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
