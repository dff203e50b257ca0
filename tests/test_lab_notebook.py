"""The notebook: every chapter runs, reacts, and is served; a browser drives it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("marimo")
pytest.importorskip("matplotlib")

from unrolled import lab
from unrolled.lab.notebook.chapters import CHAPTERS, chapter
from unrolled.lab.notebook.page import Riddle

# In each chapter a control, and a value that it does not have at first.
MOVES = {
    "Notation": {"step": 2},
    "One cell forward": {"x": -1.0},
    "Through time": {"U": -1.5},
    "The loss": {"steps": 30},
    "Backpropagation through time": {"cell": ["lstm"]},
    "Vanishing gradients": {"radius": 3.0},
    "GRU": {"bias": 4.0},
    "LSTM": {"bias": 5.0},
    "Bidirectional": {"step": 3},
    "Deep": {"layers": 2},
    "Types of networks": {"kind": ["one to many"]},
    "A language model": {"temperature": 0.2},
    "Your own cell": {"text": "def sum(x, h_prev, *, W):\n    h = W.h @ x + h_prev\n    return h"},
}


def shown(title, **changes):
    """A chapter's page, after some controls were moved."""
    page = chapter(title)
    controls = page.controls()
    controls._update(changes)
    text = page.view(controls).text
    return text + str(getattr(controls.elements.get("graph"), "svg", ""))


def pictures(page):
    return re.findall(r"<svg.*?</svg>|data:image/png[^\"'\\]+", page, re.DOTALL)


# The language model learns first, for some seconds.
QUICK = [
    pytest.param(title, marks=pytest.mark.slow) if title == "A language model" else title
    for title in CHAPTERS
]


@pytest.mark.parametrize("title", QUICK)
def test_a_chapter_has_a_formula_a_number_to_predict_and_a_picture_that_reacts(title):
    page = shown(title)
    assert "<h1" in page
    assert "marimo-tex" in page or title == "Types of networks"  # it has no equation
    assert "Predict a number" in page
    assert "Something to try" in page
    assert pictures(page)
    assert pictures(shown(title, **MOVES[title])) != pictures(page)


@pytest.mark.slow
@pytest.mark.parametrize("title", CHAPTERS)
def test_a_chapter_is_shown_at_both_ends_of_every_slider_and_for_every_choice(title):
    for name, element in chapter(title).controls().elements.items():
        if hasattr(element, "stop"):
            values = [element.start, element.stop]
        else:
            values = [[option] for option in getattr(element, "options", ())]
        for value in values:
            assert "<h1" in shown(title, **{name: value})


def test_the_whole_notebook_runs_without_a_browser():
    from unrolled.lab.notebook.app import app

    _, values = app.run()
    assert [*values["CHAPTERS"]] == [*CHAPTERS]
    assert values["page"] is chapter("Notation")


def test_a_task_is_learned_in_its_chapter():
    page = shown("Types of networks", kind=["one to one"], learn=True)
    assert "it says" in page
    assert pictures(page)


def test_a_cell_that_is_wrong_is_told_so_and_nothing_is_lost():
    page = shown("Your own cell", text="def mine(x, h_prev):\n    h = tan(x)\n    return h")
    assert "tan" in page
    assert "^" in page
    assert "Predict a number" in page


@pytest.mark.parametrize(
    ("kind", "name", "step", "arrows"),
    [
        ("cell", "", 2, ["dy<2>", "dh_prev<3>"]),
        ("cell", "", 4, ["dy<4>"]),
        ("state", "h", 2, ["dy<2>", "dh_prev<3>"]),
        ("state", "h", 0, ["dh_prev<1>"]),
        ("state", "c", 2, ["dc_prev<3>"]),
        ("state", "c", 4, []),
        ("input", "x", 2, ["dx<2>"]),
        ("gradient", "dc_prev", 3, ["dc_prev<3>"]),
    ],
)
def test_what_is_clicked_lights_the_arrows_of_its_chain_rule(kind, name, step, arrows):
    from unrolled.lab.notebook.chapters import backpropagation as page

    clicked = {"kind": kind, "name": name, "step": str(step)}
    assert page.arriving(clicked, ("h", "c")) == arrows
    gradients = page.run("lstm", page.EVERY)
    drawn = str(lab.unrolled_graph(gradients, highlight=arrows))
    assert len(re.findall(r'class="arrow gradient[^"]* highlight"', drawn)) == len(arrows)


def test_predictions():
    riddle = Riddle("What is a quarter?", 0.25)
    assert riddle.verdict(" ") == ""
    assert riddle.verdict("0.25") == riddle.verdict("0,25") == "**Right:** 0.25"
    assert "too small" in riddle.verdict("−1")
    assert "too large" in riddle.verdict("0.26")
    assert "no number" in riddle.verdict("a quarter")


# the command


@contextmanager
def served(*options):
    """`unrolled lab` in a process of its own; gives its address."""
    command = [sys.executable, "-c", "from unrolled.cli import main; main()", "lab", "--no-browser"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        lines = iter(process.stdout.readline, "")
        address = next(
            found for line in lines if (found := re.search(r"http://([\w.]+):(\d+)", line))
        )
        _wait_for(address[1], int(address[2]))  # it says where it listens before it does
        yield address[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        process.stdout.close()


def _wait_for(host, port, seconds=60):
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except ConnectionRefusedError:
            assert time.monotonic() < end, f"nobody listens at {host}:{port}"
            time.sleep(0.05)
        else:
            return


def test_the_command_serves_the_notebook():
    with served() as address, urllib.request.urlopen(address, timeout=30) as page:
        assert page.status == 200
        assert "Unrolled: the lab" in page.read().decode()


def failing(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; from unrolled.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    return done.stderr


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = failing("pass", "lab", "--no-browser", "--port", port)
    assert said.startswith(f"port {port} cannot be used")
    assert "give another one" in said


@pytest.mark.parametrize("package", ["marimo", "anywidget", "matplotlib", "babel", "threadpoolctl"])
def test_a_missing_package_is_named_with_its_remedy(package):
    said = failing(
        "import importlib.util as util; found = util.find_spec; "
        f"util.find_spec = lambda name, *rest: None if name == {package!r} else found(name, *rest)",
        *("lab", "--no-browser"),
    )
    assert said == (
        f"The command line needs {package}, which is not installed; "
        'run: pip install "unrolled[lab]"\n'
    )


def test_a_picture_without_its_package_names_the_remedy():
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from unrolled import lab\n"
        "try:\n    lab.gates\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("lab.gates needs matplotlib")
    assert done.stdout.rstrip().endswith('run: pip install "unrolled[lab]"')


# the browser

SCREENSHOTS = {
    "Notation": "lab-notation",
    "Backpropagation through time": "lab-backpropagation",
    "LSTM": "lab-lstm",
}


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def address():
    with served() as found:
        yield found


@pytest.fixture
def opened(browser, address):
    """Opens a chapter, and sees to it that nothing is asked of any other machine."""
    page = browser.new_page(viewport={"width": 1280, "height": 1250})
    asked = []
    page.on("request", lambda request: asked.append(request.url))

    def open_(title):
        page.goto(f"{address}/?chapter={[*CHAPTERS].index(title) + 1}")
        page.wait_for_selector("text=Predict a number", timeout=60_000)
        page.wait_for_load_state("networkidle")
        return page

    yield open_
    page.close()
    elsewhere = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert asked
    assert not elsewhere


def changed(page, locator, before):
    """What a part of the page holds once it has become another."""
    for _ in range(300):
        now = locator.inner_html()
        if now != before:
            return now
        page.wait_for_timeout(100)
    raise AssertionError("the picture did not change")


@pytest.mark.slow
def test_a_slider_moves_the_picture(opened):
    page = opened("Through time")
    graph = page.locator("svg.unrolled-graph").first
    before = graph.inner_html()
    assert before.count('data-kind="cell"') == 4
    page.locator("[role=slider]").first.focus()
    page.keyboard.press("ArrowRight")
    assert changed(page, graph, before).count('data-kind="cell"') == 5


@pytest.mark.slow
def test_a_click_shows_the_chain_rule(opened):
    page = opened("Backpropagation through time")
    heading = page.locator("h4").first
    assert "<4>" in heading.inner_text()
    page.locator("[data-kind=cell][data-step='2']").first.click()
    page.wait_for_function("document.querySelector('h4').innerText.includes('<2>')")
    assert "dh_1^(1)[1]<2>" in heading.inner_text()
    arrow = page.locator("[data-kind=gradient][data-name=dx][data-step='1'] .hit").first
    arrow.dispatch_event("click")
    page.wait_for_function("document.querySelector('h4').innerText.includes('dx_1')")


@pytest.mark.slow
def test_a_prediction_is_judged(opened):
    page = opened("Vanishing gradients")
    page.get_by_label("Your number").fill("9.5367e-7")
    page.keyboard.press("Tab")
    page.wait_for_selector("text=Right:")


@pytest.mark.slow
def test_the_chapters_are_chosen_in_the_sidebar(opened):
    page = opened("Notation")
    page.get_by_text("10. Deep").first.click()
    page.wait_for_selector("h1:has-text('Deep')")


@pytest.mark.slow
@pytest.mark.parametrize("title", SCREENSHOTS)
def test_screenshots(opened, title, tmp_path):
    # With UNROLLED_SCREENSHOTS=docs/images these are those of the documentation.
    folder = Path(os.environ.get("UNROLLED_SCREENSHOTS", tmp_path))
    page = opened(title)
    if title == "Backpropagation through time":
        page.locator("[data-kind=cell][data-step='2']").first.click()
        page.wait_for_function("document.querySelector('h4').innerText.includes('<2>')")
    page.wait_for_timeout(1500)
    path = folder / f"{SCREENSHOTS[title]}.png"
    page.screenshot(path=path)
    assert path.stat().st_size > 20_000
