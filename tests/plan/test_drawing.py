"""A plan drawn by Mermaid and Graphviz: real tools read every drawing, and no name can be anything but text.

Mutants that die here: a character that is not escaped; a box or an arrow that is left out; a branch that begins
nowhere; a weight or a capacity that is not shown; a drawing of a plan that cannot work.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from funcpipe_trio import FairShare, Pipeline, PlanError, RateLimit, Retry, Step, fair_merge
from funcpipe_trio._plan.document import document
from funcpipe_trio._plan.drawing import draw
from funcpipe_trio._plan.layout import lay_out
from tests.plan._plans import FIXED, embed, factories, parse, random_plan

ROOT = Path(__file__).parents[2]
MERMAID = ROOT / ".ci" / "mermaid"
NO_WIDTH = "\u200b"
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed: there is no `dot`")
needs_mermaid = pytest.mark.skipif(
    shutil.which("node") is None or not (MERMAID / "node_modules").is_dir(),
    reason="Mermaid is not installed: `npm install --no-package-lock --prefix .ci/mermaid` does it",
)

needs_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no `chromium`")

HOSTILE = [
    '"', "'", "`", "\\", "\\n", "\\N", "\\l", "\n", "\r\n", "\t", "\0", "\x1b[31m", "\x85", "\u2028", "\u202e",
    "\ud800",
    "end", "End", "subgraph", "graph", "click", "style", "default", "class", "o", "x", "---", "-->", "--o", "==>",
    "-.->",
    "[", "]", "[[", "]]", "(", ")", "{", "}", "{{", "}}", "<", ">", "|", "||", "&", "&amp;", "&lt;b&gt;", "#", "#quot;",
    "#35;", ";", ":::", "%%", "%%{init: {}}%%", "<b>", "<script>alert(1)</script>", "<br>", "</", "1. one", "- one",
    "* one", "# one", "**bold**", "__init__", "`code`", "http://x.y", "www.x.com", "a@b.c", "$$x^2$$", "fa:fa-car", "é",
    "名前", "🙂", "e\u0301", "<TABLE>", "digraph", "->", "--", "/* */", "//", "node", "=", ",", "label=", " ", "  ",
]  # fmt: skip
names = st.one_of(st.text(min_size=1, max_size=20), st.lists(st.sampled_from(HOSTILE), min_size=1).map("".join))


def named(name):
    """A plan with the name everywhere a name can be."""
    step = Step(embed, name=name).timeout(2).retry(Retry(2)).rate_limit(RateLimit(2))
    line = (
        Pipeline.from_iterable(range(3), name=name).map(step, name=name).filter(parse, name=name).buffer(2, name=name)
    )
    joined = fair_merge({name: line, (name, 1): line}, FairShare({name: 3}), name=name)
    shared = joined.fair_by(parse, FairShare({name: 2}), max_keys=3, name=name)
    return shared.broadcast({name: lambda items: items.buffer(2, name=name), "b": lambda items: items}, name=name)


def read_by_dot(text):
    """What Graphviz understood: the texts of the boxes, and the number of arrows."""
    done = subprocess.run(["dot", "-Tjson"], input=text.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), text
    read = json.loads(done.stdout)
    boxes = [part for part in read["objects"] if "_gvid" in part]
    shown = ["\n".join(step["text"] for step in box["_ldraw_"] if step["op"] == "T") for box in boxes]
    return shown, len(read.get("edges", []))


def read_by_mermaid(*texts):
    """What Mermaid understood of each: the texts of the boxes, and the number of arrows."""
    done = subprocess.run(
        ["node", MERMAID / "read.mjs"], input=json.dumps(texts).encode(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    read = json.loads(done.stdout)
    return [(["\n".join(box).replace(NO_WIDTH, "") for box in each["boxes"]], each["arrows"]) for each in read]


def shown_by_a_browser(folder, *texts):
    """The lines of text of each box of each drawing, as Mermaid puts it on a page in Chromium."""
    data = json.dumps(texts).replace("<", "\\u003c")
    (folder / "page.html").write_text(
        f"""<meta charset="utf-8"><script src="{MERMAID}/node_modules/mermaid/dist/mermaid.min.js"></script>
<pre id="out"></pre><script type="module">
mermaid.initialize({{startOnLoad: false}});
const shown = [], texts = {data};
for (const [number, text] of texts.entries()) {{
    const box = document.body.appendChild(document.createElement("div"));
    box.innerHTML = (await mermaid.render("drawing" + number, text)).svg;
    shown.push([...box.querySelectorAll(".node .nodeLabel")].map((label) => label.innerText));
    box.remove();
}}
document.getElementById("out").textContent = "[" + JSON.stringify(shown) + "]";
</script>"""
    )
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --allow-file-access-from-files --virtual-time-budget=100000"
    page = [f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"file://{folder / 'page.html'}"]
    done = subprocess.run(["chromium", *flags.split(), *page], capture_output=True, check=False)
    (read,) = re.findall(r'<pre id="out">(.*?)</pre>', done.stdout.decode(), re.DOTALL)
    return json.loads(html.unescape(read))[0]


def words(text):
    """Without what a browser does to spaces and line breaks."""
    return " ".join(text.replace(NO_WIDTH, "").split())


def shown_in(pipeline):
    drawing = draw(lay_out(pipeline._plan))
    return ["\n".join(box.lines) for box in drawing.boxes], len(drawing.arrows)


@needs_dot
@settings(max_examples=60, deadline=None)
@given(names)
@example("".join(HOSTILE))
def test_graphviz_shows_any_name_as_it_is(name):
    assert read_by_dot(named(name).describe("dot")) == shown_in(named(name))


@needs_dot
@pytest.mark.parametrize("name", FIXED)
def test_graphviz_reads_every_kind_of_plan(name):
    assert read_by_dot(FIXED[name]().describe("dot")) == shown_in(FIXED[name]())


@needs_mermaid
def test_mermaid_shows_any_name_as_it_is():
    """All in one process, because Mermaid takes a second to start."""
    found = []

    @settings(max_examples=50, deadline=None, database=None)
    @given(names)
    def collect(name):
        found.append(name)

    collect()
    plans = [named(name) for name in [*HOSTILE, "".join(HOSTILE), *found]]

    assert read_by_mermaid(*[plan.describe("mermaid") for plan in plans]) == [shown_in(plan) for plan in plans]


@needs_mermaid
def test_mermaid_reads_every_kind_of_plan():
    plans = [*(make() for make in FIXED.values()), *(random_plan(seed) for seed in range(20))]

    assert read_by_mermaid(*[plan.describe("mermaid") for plan in plans]) == [shown_in(plan) for plan in plans]


@needs_mermaid
@needs_browser
def test_a_browser_shows_any_name_as_it_is(tmp_path):
    """Mermaid reads a text again after it was parsed: as Markdown, HTML, line breaks, formulas."""
    plans = [named(name) for name in [*HOSTILE, "$$$", "a\\\\n", "\\$$n"]]
    shown = shown_by_a_browser(tmp_path, *[plan.describe("mermaid") for plan in plans])

    assert [sorted(map(words, each)) for each in shown] == [sorted(map(words, shown_in(plan)[0])) for plan in plans]


@settings(max_examples=60, deadline=None)
@given(factories)
def test_there_is_a_box_for_each_stage_and_an_arrow_into_all_but_sources(make):
    """And one for each fan-in, fan-out and the consumer; an empty fan-in and a source have none before them."""
    pipeline = make()
    drawing = draw(lay_out(pipeline._plan))
    heads = {arrow.head for arrow in drawing.arrows}
    stages = [box.lines[0] for box in drawing.boxes if box.shape in ("stage", "source")]

    assert len(stages) == len(list(lay_out(pipeline._plan).all_stages()))
    for number, box in enumerate(drawing.boxes):
        assert box.shape in ("source", "junction") or number in heads
    tails = [arrow.tail for arrow in drawing.arrows]
    assert {*tails, len(drawing.boxes) - 1} == set(range(len(drawing.boxes)))
    assert document(pipeline._plan)["max_in_flight"] is None or "at most" in drawing.boxes[-1].lines[1]


@settings(max_examples=60, deadline=None)
@given(names)
def test_a_drawing_is_made_of_harmless_characters_only(name):
    """Whatever the tools make of the rest: a name adds letters, digits, spaces, commas and codes to Mermaid's text."""
    plain, hostile = (named(each).describe("mermaid") for each in ("plain", name))

    inside = [character for line in hostile.splitlines() for character in line if not character.isalnum()]
    assert set(inside) <= set(' ,#;[](){}"<>|-')
    assert len(hostile.splitlines()) == len(plain.splitlines())


def test_mermaid_golden():
    line = Pipeline.from_iterable(range(3), name="numbers").map(str.strip)
    pipeline = fair_merge({"big": line, "small": line.map(embed)}, FairShare({"big": 3})).batch(2).buffer(1)

    assert pipeline.describe("mermaid") == "\n".join(
        [
            "flowchart TD",
            '    n0(["source numbers<br>iterable<br>map strip"])',
            '    n1(["source numbers#35;2<br>iterable<br>map strip"])',
            '    n2["stage embed<br>async map embed, 1 at a time, in order"]',
            '    n3{{"fair#95;merge<br>shares by weight of what is handed over #40;start#45;time fair queueing#41;"}}',
            '    n4["stage batch<br>batch of 2 items"]',
            '    n5(["consumer<br>items in flight#58; at most 51"])',
            '    n1 -->|"link of 16"| n2',
            '    n0 -->|"input big, weight 3<br>link of 16"| n3',
            '    n2 -->|"input small, weight 1<br>link of 16"| n3',
            "    n3 --> n4",
            '    n4 -->|"link of 1"| n5',
        ]
    )


def test_dot_golden():
    pipeline = Pipeline.from_iterable(range(3), name='a "b" \\').map(embed).fair_by(parse, max_keys=2)

    assert pipeline.describe("dot") == "\n".join(
        [
            "digraph pipeline {",
            '    node [fontname="sans-serif"];',
            '    edge [fontname="sans-serif"];',
            '    n0 [shape=box, style=rounded, label="source a \\"b\\" \\\\\\niterable"];',
            '    n1 [shape=box, label="stage embed\\nasync map embed, 1 at a time, in order"];',
            '    n2 [shape=box, style=dashed, label="fair by parse: equal shares, up to 2 keys of 16 items, '
            'a full queue blocks the\\nstream"];',
            '    n3 [shape=box, style=rounded, label="consumer\\nitems in flight: at most 50"];',
            '    n0 -> n1 [label="link of 16"];',
            "    n1 -> n2;",
            "    n2 -> n3;",
            "}",
        ]
    )


@pytest.mark.parametrize("format", ["mermaid", "dot", "json"])
def test_a_plan_that_cannot_work_is_not_drawn(format):
    with pytest.raises(PlanError, match="with concurrency, fn must be an async function"):
        Pipeline.from_iterable(range(3)).map(int, concurrency=3).describe(format)
