"""The page that follows chains while they think: what it shows, what it refuses, and how it keeps a reader's place."""

import http.client
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from latent_lab.config import ConfigError
from latent_lab.deliberation.board import Board
from latent_lab.job import job
from latent_lab.problems import Problem
from latent_lab.report.cards import END, LONGEST, by_iteration, card, chain, counts, cut
from latent_lab.report.live import HASH, HEADERS, View, serving
from latent_lab.report.summarize import followed
from tests.pages import Outline as Plain
from tests.pages import measured, needs_chromium

ATTACK = "<script>alert('x')</script>"
PROBLEMS = [Problem(f"p{n} {ATTACK}", f"What is 3+{n}? {ATTACK}", (), str(3 + n)) for n in range(3)]
Row = dict[str, Any]


class Outline(Plain):
    """The same for a page with inputs and one script."""

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        super().handle_starttag(tag, attributes)
        if tag == "input":
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if "script" not in self.open:
            super().handle_data(data)


def row(k: int, answer: str | None, correct: bool, **more: Any) -> Row:
    """An attempt at the first problem; 7 tokens each, and notes of 5."""
    columns = {"summary": None, "summary_tokens": None, "error": None, "stop_reason": None, "is_carried": False, "reason": None}
    columns |= {"is_replayed": False, "finish_reason": "stop", "reasoning": f"thought {k} {ATTACK}", "reasoning_tokens": 7}
    sums = {"cum_tokens": 12 * k + 7, "cum_usd": 0.0}
    where = {"id": PROBLEMS[0].id, "method": "answer_only", "chain": 0, "iteration": k}
    return {**where, "answer": answer, "correct": correct, **columns, **sums, **more}


@pytest.fixture
def view() -> View:
    """Two chains of two problems, one of which goes on and one of which has failed, and two first attempts."""
    board = Board([{"cost_usd": 0.25, "tokens": {"prompt": 1_500, "completion": 40}, "error": None}])
    board.settled([row(0, "5", False, summary=f"note {ATTACK}", summary_tokens=5)])
    board.seen(row(1, "3", True, finish_reason="length", is_replayed=True, cum_usd=0.125))
    failed = {"id": PROBLEMS[1].id, "chain": 1}
    board.settled([row(0, ATTACK, False, error=f"400: {ATTACK}", stop_reason="error", **failed)])
    board.settled([row(0, None, False, method="samples", chain=n, reason="no_answer") for n in range(2)])
    settings = SimpleNamespace(iterations=2)
    plan: Any = SimpleNamespace(settings=settings, num_attempts=8)
    return View(board, plan, PROBLEMS, ["python", "-m", "x", ATTACK], Path("out/report.html"))


# What a card holds


def test_a_chain_has_its_class_its_attempts_and_what_they_cost() -> None:
    rows = [row(0, "5", False), row(1, "3", True, stop_reason="agreement"), row(2, "3", True, is_carried=True, reasoning=None)]
    found = chain(4, ("answer_only", 2), rows)
    assert (found["id"], found["name"], found["outcome"]) == ("chain-4-answer_only-2", "answer only, chain 2", "improved_right")
    assert (found["state"], found["stop"], found["tokens"]) == ("", "agreement", 19)
    assert [(each["iteration"], each["answer"], each["right"]) for each in found["attempts"]] == [(0, "5", False), (1, "3", True)]


def test_a_chain_that_goes_on_or_has_failed_says_so() -> None:
    assert chain(0, ("whole", 0), [row(0, "3", True)])["state"] == "going_on"
    assert chain(0, ("whole", 0), [row(0, "3", True, error="400", stop_reason="error")])["state"] == "failed"


def test_of_a_long_text_the_beginning_and_the_end_are_shown() -> None:
    text = "a" * LONGEST + "b" * 1_234
    assert cut("a" * LONGEST) == "a" * LONGEST
    assert cut(text) == f"{'a' * (LONGEST - END)}\n[... 1,234 characters more are in samples.jsonl ...]\n{'b' * END}"


def test_what_is_so_far_is_counted_over_all_chains(view: View) -> None:
    found = counts(view.board, PROBLEMS)
    assert {name: count for name, count in found.items() if count} == {
        "improved_right": 1, "always_wrong": 1, "going_on": 1, "failed": 1,
    }  # fmt: skip
    assert by_iteration(view.board, PROBLEMS) == {"answer_only": [(0, 2), (1, 1)], "samples": [(0, 2)]}


# The page


def test_the_page_says_where_things_stand_and_escapes_what_models_write(view: View) -> None:
    page = Outline(view.page())
    assert page.text.startswith(
        "Thinking again, live Thinking again, live python -m x '<script>alert('\"'\"'x'\"'\"')</script>' Thinking. "
        "Scripts are off here: load the page again to see what is new. So far "
    )
    assert "attempts 4 of 24 " in page.text
    assert "right 50.0% of 2 chains US dollars 0.2500 tokens read, written 1,500, 40 calls, failed 1, 0" in page.text
    assert "right of those answered 0 1 2 answer_only 0 of 2 1 of 1 - first attempts that vote 0 of 2 - -" in page.text
    assert "improved right: 1" in page.text
    assert "going on: 1" in page.text
    assert (
        f"p0 {ATTACK} right: 3 What is 3+0? {ATTACK} answer only, chain 0 5 ✗ wrong → 3 ✓ right improved right going on "
        f"19 tokens, 0.1250 US dollars Attempt 0 5 ✗ wrong 7 tokens thought 0 {ATTACK} Handed on, 5 tokens note {ATTACK} "
        f"Attempt 1 3 ✓ right 7 tokens, ended by length, taken from elsewhere thought 1 {ATTACK} "
        "First attempts that vote: no answer ✗ wrong , no answer ✗ wrong"
    ) in page.text
    assert f"Failed: 400: {ATTACK}" in page.text
    assert f"p2 {ATTACK} right: 5 What is 3+2? {ATTACK} not begun" in page.text
    assert page.tags.count("script") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href")]


def test_what_has_changed_comes_in_pieces_of_the_page(view: View) -> None:
    version = view.board.version
    assert view.news(version)["cards"] == {}
    view.board.seen(row(0, "4", True, id=PROBLEMS[1].id))
    news = view.news(version)
    assert list(news["cards"]) == ["card-1"]
    assert news["cards"]["card-1"].strip() in view.page()
    assert (news["version"], news["counts"]["always_right"], news["state"]) == (version + 1, 1, "Thinking.")
    assert set(view.news(10_000)["cards"]) == {"card-0", "card-1"}  # asked by a page of an earlier process
    view.board.num_settled = 24
    assert view.news(version)["state"] == "All attempts are made; the report is being written."


def test_time_left_goes_by_the_last_minute(view: View) -> None:
    now = time.monotonic()
    view.marks.clear()
    view.marks.extend([(now - 600, 0), (now - 100, 4)])
    view.board.num_settled = 14
    assert view.rate(14) == pytest.approx(0.1, abs=0.01)
    assert view.now()["left"].startswith("0:01:4")  # ten more at a tenth a second
    assert [done for _, done in view.marks] == [4, 14, 14]


def test_the_script_is_the_one_that_is_allowed(view: View) -> None:
    import base64
    import hashlib

    script = view.page().partition("<script>")[2].partition("</script>")[0]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == HASH
    assert f"script-src 'sha256-{HASH}'; connect-src 'self'" in HEADERS["Content-Security-Policy"]


def test_this_machine_alone_is_answered_and_nothing_else_is_there(view: View) -> None:
    with serving(view, 0) as address:
        with urlopen(address) as reply:
            assert reply.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]
            assert reply.read().decode().startswith("<!DOCTYPE html>")
        with urlopen(f"{address}news?since=0") as reply:
            assert set(json.load(reply)["cards"]) == {"card-0", "card-1"}
        for path, status in (("news?since=x", 400), ("news?since=-1", 400), ("../etc/passwd", 404), ("news/", 404)):
            with pytest.raises(HTTPError) as refused:
                urlopen(address + path)
            assert refused.value.code == status
        with pytest.raises(HTTPError) as refused:
            urlopen(Request(address, headers={"Host": "elsewhere.example"}))
        assert refused.value.code == 403
        with pytest.raises(HTTPError) as refused:
            urlopen(Request(address, data=b"x"))
        assert refused.value.code == 501
        port = int(address.rpartition(":")[2].rstrip("/"))
        with pytest.raises(ConfigError, match=rf"^task\.port: given {port}; .*; allowed: a port that is free, or 0 for any$"):
            serving(view, port).__enter__()
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection("127.0.0.1", port, timeout=2).connect()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of this machine")
def test_the_server_listens_at_one_address_alone(view: View) -> None:
    with serving(view, 0) as address, pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection("127.0.0.2", int(address.rpartition(":")[2].rstrip("/")), timeout=2).connect()


def test_a_port_that_is_none_is_refused_and_how_it_is_shown_is_no_part_of_a_name() -> None:
    asked = ["task=summarize", "dataset=stories"]
    with pytest.raises(ConfigError, match=r"^task\.port: given 70000; allowed: 0 \(a free one\) to 65535$"):
        job("eval", [*asked, "task.port=70000"])
    assert job("eval", [*asked, "task.page=true", "task.port=8000"]).slug == job("eval", asked).slug


def test_the_page_is_there_where_it_is_asked_for(view: View, caplog: pytest.LogCaptureFixture) -> None:
    asked = ["task=summarize", "dataset=stories"]
    with caplog.at_level("INFO"), followed(job("eval", asked).config.task, view):
        assert caplog.messages == []
    with caplog.at_level("INFO"), followed(job("eval", [*asked, "task.page=true"]).config.task, view):
        (said,) = caplog.messages
        address = said.removeprefix("to be followed on ").removesuffix(" (only this machine reaches it)")
        with urlopen(address) as reply:
            assert reply.status == 200


# In a browser


@needs_chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_as_wide_as_its_window_and_the_keyboard_reaches_all_of_it(theme: str, view: View, tmp_path: Path) -> None:
    measure = """
      const shown = () => [...view.querySelectorAll('.chain')].filter(x => x.getClientRects().length).length;
      const all = shown();
      view.getElementById('only-improved_right').click();
      const some = [shown(), [...view.querySelectorAll('.card')].filter(x => x.getClientRects().length).length];
      view.querySelector('.chain summary').focus();
      return [all, ...some, view.activeElement.tagName];
    """
    for width, content, *found, paper in measured(tmp_path, view.page(), [390, 1000], measure, theme):
        assert content <= width
        assert found == [2, 1, 1, "SUMMARY"]
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(19, 22, 27)"}[theme]


@needs_chromium
def test_what_is_open_and_where_one_is_stay_when_a_card_changes(view: View, tmp_path: Path) -> None:
    board = view.board
    page = view.page()
    board.seen(row(2, "9", False))
    news = json.dumps(view.news(0)).replace("</", "<\\/")
    measure = f"""
      const window = view.defaultView, news = {news};
      view.getElementById('chain-0-answer_only-0').open = true;
      view.getElementById('chain-1-answer_only-1').open = false;
      view.getElementById('chain-0-answer_only-0-line').focus();
      for (const [id, html] of Object.entries(news.cards)) window.put(id, html);
      window.put('head', news.head);
      const open = [...view.querySelectorAll('details')].map(part => part.open);
      const last = [...view.querySelectorAll('#card-0 .attempt b')].pop().textContent;
      return [open, view.activeElement.id, last, view.querySelectorAll('.card').length, view.querySelectorAll('#head').length];
    """
    ((_, _, *found, _),) = measured(tmp_path, page, [1000], measure, "light")
    assert found == [[True, False], "chain-0-answer_only-0-line", "Attempt 2", 3, 1]


@needs_chromium
def test_a_page_that_nobody_answers_any_more_says_where_it_is_kept(view: View, tmp_path: Path) -> None:
    measure = (
        "view.defaultView.say(view.getElementById('state').dataset.ended); return [view.getElementById('state').textContent];"
    )
    ((_, _, said, _),) = measured(tmp_path, view.page(), [1000], measure, "light")
    assert said.endswith("the experiment has ended, or was stopped. Once it has ended, this page is out/report.html.")


def test_a_card_alone_is_balanced(view: View) -> None:
    drawn = view.pages.get_template("cards.html.j2").module.card(card(0, PROBLEMS[0], view.board.chains(PROBLEMS[0].id)))
    assert Outline(str(drawn)).tags[0] == "article"
