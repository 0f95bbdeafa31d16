"""The page of an explanation in a real browser: light and dark, on a wide and a narrow screen."""

import dataclasses
import json
import re
import shutil

import pytest

from kloaders.diagnostics.explain import html
from kloaders.diagnostics.explain.measured import Measured, Run, Settings
from kloaders.diagnostics.explain.verdict import judge

# The browser of the system: nothing is downloaded.
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)


def explanation(model=True, checked=True, **settings):
    given = Settings(
        samples=1_281_167,
        batch_size=256,
        cores=16,
        workers=16,
        has_transform=True,
        users_code=True,
        sample_bytes=150_532,
        raw_bytes=150_532,
        stored_bytes=110_000.0,
        free_bytes=2**40,
        kept=0.3,
        **settings,
    )
    measured = Measured(
        given,
        read_s=2e-4,
        read_cached_s=1.5e-5,
        decode_s=2.1e-3,
        transform_s=4e-4,
        copy_s=1e-5,
        dct_decode_s=1.5e-3,
        cold=Run(5900, 15.5),
        warm=Run(6100, 15.8),
        ram=Run(30_000, 15.9),
        disk_rate=24_000,
        disk_rate_more=26_000,
        probed=256,
        seconds=9.1,
    )
    if model:
        measured = dataclasses.replace(
            measured,
            step_s=16e-3,
            step_cpu_s=4e-3,
            to_device_s=9e-4,
            fit_s=33e-3,
            model_from="model",
        )
    # What a user's class may be called: longer than a narrow screen, and no HTML.
    name = "MyMultispectralSatelliteImageSequenceLoaderWithAnUnusuallyLongName"
    found = judge(
        measured,
        f"{name}<b>&, 1,281,167 samples in batches of 256",
        {"cores": 16, "system": "Linux-6.1.0-x86_64-with-glibc2.36", "python": "3.12.3"},
    )
    if checked:
        advice = [dataclasses.replace(a, measured=0.9 * a.predicted) for a in found.advice]
        found = dataclasses.replace(found, advice=advice)
    return found


PAGES = {
    "with a model": explanation,
    "without": lambda: explanation(model=False, checked=False),
    "nothing to change": lambda: dataclasses.replace(explanation(), bottleneck="model", advice=[]),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_nobody_for_anything(name):
    """No address, script, picture or font from elsewhere; texts are escaped."""
    page = PAGES[name]().to_html()
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|<script|https?://(?!www\.w3\.org)", page)
    assert "Name&lt;b&gt;&amp;, 1,281,167" in page
    assert "Name<b>" not in page


def test_a_notebook_gets_the_same_without_a_page_around_it():
    """Its styles reach nothing else in the notebook."""
    found = explanation()
    cell = found._repr_html_()
    assert cell == html.in_a_notebook(found)
    assert "<html" not in cell
    rules = re.findall(
        r"(?:^|})\s*([^{}@]+)\{", re.search(r"<style>(.*)</style>", cell, re.DOTALL)[1]
    )
    assert rules
    assert all(rule.strip().startswith(".kle") for rule in rules), rules


# ------------------------------------------------------------------------------------- in a browser

# Checks the page as a reader sees it: text that is cut off, overlaps or is too pale.
LOOK = """
() => {
  const found = {wide: document.documentElement.scrollWidth - innerWidth, out: [], over: [], pale: []};
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const lines = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    if (!node.data.trim() || node.parentElement.closest('style')) continue;
    const element = node.parentElement, range = document.createRange();
    range.selectNodeContents(node);
    const said = node.data.trim().slice(0, 40);
    const ratio = contrast(rgb(getComputedStyle(element).color), ground(element));
    if (ratio < 4.5) found.pale.push([said, ratio]);
    if (parseFloat(getComputedStyle(element).fontSize) < 12) found.pale.push([said, 'small']);
    for (const box of range.getClientRects()) {
      if (box.left < 0 || box.right > innerWidth + 0.5) found.out.push(said);
      lines.push([said, box]);
    }
  }
  for (let i = 0; i < lines.length; i++) for (let j = i + 1; j < lines.length; j++) {
    const [a, p] = lines[i], [b, q] = lines[j];
    const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (across > 1 && down > 4) found.over.push([a, b]);
  }
  found.lines = lines.length;
  found.bars = [...document.querySelectorAll('svg')].map(svg => {
    const bar = [...svg.querySelectorAll('rect:not(.track)')].map(r => r.getBoundingClientRect().width);
    const fill = rgb(getComputedStyle(svg.querySelector('rect:not(.track)')).fill);
    return {width: svg.getBoundingClientRect().width, bar, contrast: contrast(fill, ground(svg))};
  });
  found.ground = getComputedStyle(document.body).backgroundColor;
  return found;
}
"""


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright (the extra [browser])"
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        # Chromium's sandbox does not work as root in a container.
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_the_page_reads_well(browser, tmp_path, name, width, scheme):
    """Nothing is cut off, overlaps, or is too pale or small; bars are as long as their figures."""
    found = PAGES[name]()
    found.save(tmp_path / "explain.html")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, said = [], []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((tmp_path / "explain.html").as_uri())
    look = page.evaluate(LOOK)
    title = page.title()
    context.close()
    assert asked == [(tmp_path / "explain.html").as_uri()]
    assert said == []
    assert look["wide"] <= 0
    assert (look["out"], look["over"], look["pale"]) == ([], [], [])
    assert look["lines"] > 30
    assert title.startswith("Where the time goes: MyMultispectral")
    assert (look["ground"] == "rgb(255, 255, 255)") == (scheme == "light")
    assert all(bar["contrast"] >= 3 for bar in look["bars"])
    assert all(sum(bar["bar"]) <= bar["width"] + 0.5 for bar in look["bars"])
    told = json.loads(found.to_json())
    rates = list(told["limits"].values())
    longest = [bar["bar"][0] / bar["width"] for bar in look["bars"]]
    shares = [rate / max(rates) for rate in rates]
    start = len(longest) - len(told["sample_s"]) - len(rates)
    assert longest[start : start + len(rates)] == pytest.approx(shares, abs=0.01)


def test_a_notebook_cell_reads_well(browser, tmp_path):
    """Inside a page of another colour, dark as notebooks are at night."""
    context = browser.new_context(viewport={"width": 700, "height": 900}, color_scheme="dark")
    page = context.new_page()
    page.set_content(
        f"<body style='background:#111;color:#eee'>{explanation()._repr_html_()}</body>"
    )
    look = page.evaluate(LOOK)
    context.close()
    assert look["wide"] <= 0
    assert (look["out"], look["over"], look["pale"]) == ([], [], [])


def test_a_bad_page_would_be_found(browser):
    """Otherwise the tests above would pass whatever the page is like."""
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.set_content(
        "<body style='background:white'><p style='color:#999'>too pale</p>"
        "<p style='position:absolute;left:9px;top:99px'>one line</p>"
        "<p style='position:absolute;left:9px;top:99px'>on another</p>"
        "<p style='width:800px;white-space:nowrap'>" + "wide " * 60 + "</p></body>"
    )
    look = page.evaluate(LOOK)
    page.close()
    assert look["wide"] > 0
    assert look["out"]
    assert ["one line", "on another"] in look["over"]
    assert look["pale"][0][0] == "too pale"


def test_rates_far_apart_are_on_a_logarithmic_axis():
    """The lowest of them, which limits the others, has a bar that can be read."""
    assert html._decades([200, 900]) == (0.0, 900)
    low, high = html._decades([300.0, 5900.0, 2_000_000.0])
    assert (low, high) == (100.0, 10_000_000.0)
    assert html._share(300.0, low, high) == pytest.approx(0.095, abs=0.001)
    bars = html._bars([("a", 0.1, "1", "")], 5)
    assert bars.count("<line") == 4
    assert "<b>Next:</b>" in explanation().to_html()


def test_names_stay_whole_in_a_notebook():
    """A column is as wide as its longest word: `overflow-wrap: anywhere` let it be two letters."""
    page = explanation()._repr_html_()
    assert "anywhere" not in page
    assert "µs" in page
    assert " us<" not in page
