"""A page as tests see it: its outline, and what headless Chromium measures in it, in a light or a dark theme."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install chromium to see the page in a browser")
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync --hide-scrollbars --virtual-time-budget=5000"
SCHEMES = {"dark": 0, "light": 1}
VOID = {"meta", "br", "img"}


class Outline(HTMLParser):
    """Checks that tags are balanced, and collects tags, attributes and the text a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


FRAMES = """
const results = [];
for (const width of WIDTHS) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:800px;border:0`;
  frame.onload = () => {
    const view = frame.contentDocument, root = view.documentElement;
    for (const part of view.querySelectorAll("details")) part.open = true;
    const paper = frame.contentWindow.getComputedStyle(view.body).backgroundColor;
    results.push([width, root.scrollWidth, ...measure(view, width), paper]);
    if (results.length == WIDTHS.length) document.body.textContent = JSON.stringify(results.sort((a, b) => a[0] - b[0]));
  };
  frame.srcdoc = PAGE;
  document.body.append(frame);
}
"""


def measured(folder: Path, page: str, widths: list[int], measure: str, theme: str) -> list[list[Any]]:
    """For each width of a window what it shows: ``[width, width of the content, *measure(view, width), background colour]``.

    ``measure`` is the body of a function in JavaScript that returns a list. The page's own policy, which forbids scripts, is
    left out here.
    """
    shown = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    source = json.dumps(shown).replace("</", "<\\/")
    script = f"const PAGE = {source}, WIDTHS = {widths}; const measure = (view, width) => {{{measure}}};{FRAMES}"
    (folder / "frames.html").write_text(f"<!DOCTYPE html><body><script>{script}</script></body>", encoding="utf-8")
    command = [str(CHROMIUM), *QUIET.split(), f"--blink-settings=preferredColorScheme={SCHEMES[theme]}"]
    command += [f"--user-data-dir={folder}/profile", "--dump-dom", (folder / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found: list[list[Any]] = json.loads(re.sub("<[^>]*>", "", done.stdout))
    return found
