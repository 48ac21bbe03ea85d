"""Playing with a run: what is typed is thought through, read, and edited, in a terminal and on a page of this machine."""

import html
import io
import re
import threading
import time
from dataclasses import replace
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import torch

from latent_lab.job import job
from latent_lab.report.play import Edit, Player, PlayError, Saying, as_problem, as_question, expected, player, step_of
from latent_lab.report.play_task import PlayTask
from latent_lab.report.play_terminal import clean, talk
from latent_lab.report.play_web import bound, serve
from tests.pages import Outline as Plain
from tests.tiny import train

ATTACK = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    options = ("stage=coconut", "stage.stages=[0,3]", "stage.epochs=[1]", "stage.supervision=1.0")
    return train(tmp_path_factory.mktemp("outputs"), *options)


@pytest.fixture(scope="module")
def at(run):
    with player(job("eval", [f"run={run}", "device=cpu", "task=play"]), [Saying("marks", marked)]) as opened:
        yield opened


def marked(thoughts):
    """A number that tells thoughts apart, as a reader says it."""
    return [(f"{float(thought @ torch.linspace(-100, 100, len(thought))):.6f}", None) for thought in thoughts]


def marks(scene):
    """What the second reader says of every thought, as numbers."""
    return [float(thought.readings[1][0]) for thought in scene.thoughts]


def same(*values):
    """Numbers of equal thoughts."""
    return pytest.approx(list(values), abs=1e-2)


class TestWhatIsTyped:
    @pytest.mark.parametrize(
        ("text", "edit"),
        [
            ("swap 2 from 11 + 22", Edit("swap", 2, "11 + 22 =")),
            ("  zero 1 ", Edit("zero", 1)),
            ("remove 3", Edit("remove", 3)),
            ("11 + 22", None),
            ("", None),
        ],
    )
    def test_edits_are_told_from_problems(self, text, edit):
        assert Edit.parse(text) == edit
        if edit:
            assert Edit.parse(str(edit)) == edit

    @pytest.mark.parametrize(
        "text", ["swap", "swap 2", "swap two from 1 + 1", "zero", "zero -1", "zero 1 from 1 + 1", "remove 1 2"]
    )
    def test_half_an_edit_is_refused_with_what_is_allowed(self, text):
        with pytest.raises(PlayError, match="allowed are 'swap K from PROBLEM', 'zero K' and 'remove K'"):
            Edit.parse(text)

    @pytest.mark.parametrize(
        ("text", "question"),
        [("347+285", "347 + 285 ="), (" 5 + 6 = ", "5 + 6 ="), ("a\\nb", "a\nb"), ("Tom has 3.", "Tom has 3.")],
    )
    def test_sums_are_written_as_the_dataset_does(self, text, question):
        assert as_question(text) == question

    @pytest.mark.parametrize("text", ["", "x" * 2001])
    def test_nothing_and_too_much_are_refused(self, text):
        with pytest.raises(PlayError, match="give a problem of 1 to 2000"):
            as_question(text)

    def test_steps_are_known_for_sums_alone(self):
        assert [step_of(as_problem("47 + 85"), slot) for slot in (1, 3, 4)] == ["7+5=12 write 2 carry 1", "carry 1 write 1", ""]
        assert step_of(as_problem("Tom has 3."), 1) is None
        assert (as_problem("7 + 85").answer, as_problem("Tom has 3.").answer) == ("92", "")

    @pytest.mark.parametrize(
        ("edits", "answer"),
        [
            (["swap 2 from 111 + 222"], "532"),  # 1+2=3 carries nothing: 3+2=5
            (["swap 1 from 111 + 222"], "623"),  # 1+2=3 carries nothing: 4+8=12, then 3+2+1
            (["swap 3 from 999 + 999"], "1932"),  # 9+9+1=19
            (["swap 1 from 111 + 222", "swap 2 from 111 + 222"], "533"),
            (["swap 3 from 11 + 22"], None),
            (["zero 1"], None),
            ([], None),
        ],
    )
    def test_what_a_sum_becomes_when_columns_are_exchanged(self, edits, answer):
        assert expected(as_problem("347 + 285"), [Edit.parse(text) for text in edits]) == answer

    def test_a_port_that_cannot_be(self):
        with pytest.raises(ValueError, match="port=65536: allowed are 0"):
            PlayTask(port=65536)


class TestScenes:
    def test_the_answer_is_the_one_that_grading_sees(self, at):
        (row,) = at.at.solver.graded(at.at.problems, [at.encode(problem) for problem in at.at.problems])
        scene = at.scene(at.at.problems[0].question)
        assert scene.answer == row["answer"] or scene.answer.startswith("no ")
        assert (scene.gold, scene.before, scene.edits) == (row["gold"], scene.answer, ())

    def test_thoughts_are_the_models_own_and_every_reader_reads_them(self, at):
        scene = at.scene("47 + 85")
        thoughts = at.at.solver.thoughts([at.encode(as_problem("47 + 85"))])[0]
        assert scene.readers == ("step decoder", "marks")
        assert marks(scene) == same(*(float(said) for said, _ in marked(thoughts)))
        assert [thought.gold for thought in scene.thoughts] == list(as_problem("47 + 85").steps)
        assert all(0 <= thought.readings[0][1] <= 1 for thought in scene.thoughts)

    @pytest.mark.parametrize("slot", [1, 2, 3])
    def test_a_thought_swapped_for_itself_changes_nothing(self, at, slot):
        scene, plain = at.scene("47 + 85", [Edit("swap", slot, "47 + 85 =")]), at.scene("47 + 85")
        assert (scene.answer, [t.readings for t in scene.thoughts]) == (plain.answer, [t.readings for t in plain.thoughts])

    def test_a_swapped_thought_is_the_donors_and_those_before_it_stay(self, at):
        plain, donor = at.scene("47 + 85"), at.scene("31 + 22")
        scene = at.scene("47 + 85", [Edit("swap", 2, "31 + 22 =")])
        assert marks(scene)[:2] == same(marks(plain)[0], marks(donor)[1])
        assert marks(scene)[2:] != same(marks(plain)[2])  # it follows from the swapped one, too
        assert [thought.edited for thought in scene.thoughts] == ["", "swap 2 from 31 + 22 =", ""]
        assert scene.before == plain.answer

    def test_a_zeroed_thought_is_zero(self, at):
        assert marks(at.scene("47 + 85", [Edit("zero", 2)]))[1] == 0

    def test_the_last_edit_of_a_thought_counts(self, at):
        twice = at.scene("47 + 85", [Edit("zero", 2), Edit("swap", 2, "47 + 85 =")])
        assert marks(twice) == same(*marks(at.scene("47 + 85")))

    def test_a_removed_thought_is_gone_and_the_others_keep_their_vectors(self, at):
        plain, scene = at.scene("47 + 85"), at.scene("47 + 85", [Edit("remove", 2)])
        assert [thought.slot for thought in scene.thoughts] == [1, 3]
        assert marks(scene) == same(marks(plain)[0], marks(plain)[2])
        assert at.scene("47 + 85", [Edit("remove", slot) for slot in (1, 2, 3)]).thoughts == ()

    @pytest.mark.parametrize(
        ("edits", "said"),
        [
            ([Edit("zero", 4)], "zero 4: this problem has the thoughts 1 to 3"),
            ([Edit("remove", 2), Edit("zero", 2)], "zero 2: thought 2 was removed; undo that first"),
            ([Edit("zero", 1)] * 21, "21 edits: allowed are at most 20; undo some"),
        ],
    )
    def test_what_cannot_be_done_is_said(self, at, edits, said):
        with pytest.raises(PlayError, match=re.escape(said)):
            at.scene("47 + 85", edits)

    def test_words_outside_the_vocabulary_are_refused(self, at, monkeypatch):
        tokenizer = at.at.solver.backbone.tokenizer
        monkeypatch.setattr(type(tokenizer), "unk_token_id", tokenizer.convert_tokens_to_ids("e"), raising=False)
        with pytest.raises(PlayError, match=r"hello: this model's vocabulary does not know all of that; it knows [0-9]{2} "):
            at.scene("hello")

    def test_a_question_longer_than_the_model_is_refused(self, at):
        with pytest.raises(PlayError, match="tokens, too many for the 128 positions of the model"):
            at.scene("1 + " * 100)

    def test_pause_tokens_feed_nothing_so_they_can_only_be_removed(self, at, monkeypatch):
        monkeypatch.setattr(at.at.solver.reasoner, "loop", replace(at.at.solver.reasoner.loop, feeds="tokens"))
        plain, scene = at.scene("47 + 85"), at.scene("47 + 85", [Edit("remove", 3)])
        assert marks(scene) == same(*marks(plain)[:2])
        with pytest.raises(PlayError, match="zero 1: pause tokens feed no thought in; allowed is 'remove K'"):
            at.scene("47 + 85", [Edit("zero", 1)])

    def test_nothing_is_left_on_disk(self, run, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        before = sorted(run.rglob("*"))
        with player(job("eval", [f"run={run}", "device=cpu", "task=play"])) as opened:
            opened.scene("47 + 85")
        assert (sorted(run.rglob("*")), list(tmp_path.iterdir())) == (before, [])


class TestTerminal:
    def said(self, at, *lines):
        out = io.StringIO()
        return talk(at, iter(lines), out), out.getvalue()

    def test_a_session(self, at):
        counts, text = self.said(at, "47 + 85", "", "swap 2 from 31 + 22", "zero 1", "undo", "remove 3", "quit", "12 + 13")
        assert counts == {"problems": 1, "edits": 3, "errors": 0}
        assert text.count("47 + 85 = ") == 5
        assert "12 + 13" not in text
        assert re.search(r"thought +step +step decoder +marks +edit", text)
        assert "expected if each thought holds its column: 52" in text  # units 7+5=12, tens the donor's 3+2=5 without a carry
        assert "without thought 3" in text

    def test_help_names_every_command(self, at):
        assert all(word in self.said(at, "help")[1] for word in ("swap 2 from", "zero 1", "remove 3", "undo", "quit"))

    def test_errors_take_a_line_and_the_session_goes_on(self, at):
        counts, text = self.said(at, "undo", "zero 1", "swap two", "swap 2", "47 + 85", "zero 9", "undo", "zero 1")
        assert counts == {"problems": 1, "edits": 1, "errors": 6}
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        assert errors[0] == "error: undo: there is no problem yet; type one, such as 347 + 285"
        assert errors[-2:] == ["error: zero 9: this problem has the thoughts 1 to 3", "error: undo: nothing was edited"]

    def test_a_terminal_obeys_nothing_that_is_shown(self, at):
        assert clean("a\x1b[2Jb\x07\nc") == "a\ufffd[2Jb\ufffd\nc"
        hostile = Player(at.at, [Saying("[bold]odd", lambda thoughts: [("\x1b[31m[red]x", 1.0)] * len(thoughts))])
        text = self.said(hostile, "47 + 85")[1]
        assert "\x1b" not in text
        assert "[31m[red]x" in text

    def test_a_pipe_will_do(self, run, monkeypatch, capsys):
        monkeypatch.setattr("sys.stdin", io.StringIO("47 + 85\nzero 2\n"))
        asked = job("eval", [f"run={run}", "device=cpu", "task=play"])
        assert asked.config.task.run(asked) == {"problems": 1, "edits": 1, "errors": 0}
        assert capsys.readouterr().out.count("47 + 85 = ") == 2


class Outline(Plain):
    """The same for a page with inputs."""

    def handle_starttag(self, tag, attributes):
        super().handle_starttag(tag, attributes)
        if tag == "input":
            self.open.pop()


@pytest.fixture(scope="module")
def url(at):
    server, listening = bound(at, 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = listening.getsockname()
    assert host == "127.0.0.1"
    yield f"http://{host}:{port}/"
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def get(url, *query, **headers):
    """Status, headers and text of a page."""
    try:
        with urlopen(Request(f"{url}?{urlencode(query)}", headers=headers), timeout=30) as reply:
            return reply.status, reply.headers, reply.read().decode()
    except HTTPError as error:
        return error.code, error.headers, error.read().decode()


class TestWeb:
    def test_an_empty_page_asks_for_a_problem(self, url):
        status, headers, text = get(url)
        assert status == 200
        assert Outline(text).text == "Thoughts, live Thoughts, live Problem Think"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")

    def test_it_does_what_the_terminal_does(self, url, at):
        scene = at.scene("47 + 85", [Edit("swap", 2, "31 + 22 =")])
        status, _, text = get(url, ("problem", "47 + 85"), ("new", "swap 2 from 31 + 22"))
        seen = Outline(text).text
        assert status == 200
        assert f"47 + 85 = {scene.answer}" in html.unescape(seen)
        assert "expected if each thought holds its column: 52" in seen
        assert all(thought.readings[1][0] in seen for thought in scene.thoughts)
        assert 'name="edit" value="swap 2 from 31 + 22"' in text
        assert 'href="?problem=47+%2B+85"' in text

    def test_edits_add_up(self, url, at):
        scene = at.scene("47 + 85", [Edit("swap", 2, "31 + 22 ="), Edit("remove", 1)])
        seen = Outline(get(url, ("problem", "47 + 85"), ("edit", "swap 2 from 31 + 22"), ("new", "remove 1"))[2]).text
        assert f"47 + 85 = {scene.answer}" in seen
        assert "remove 2" in seen
        assert "zero 1" not in seen

    def test_what_cannot_be_done_is_said_and_what_was_there_stays(self, url):
        status, _, text = get(url, ("problem", "47 + 85"), ("edit", "zero 1"), ("new", "zero 9"))
        seen = Outline(text).text
        assert status == 400
        assert "zero 9: this problem has the thoughts 1 to 3" in seen
        assert "0.000000" in seen
        assert 'value="zero 9"' in text
        assert get(url, ("problem", "1 + " * 100))[0] == 400
        assert get(url, ("problem", "47 + 85"), ("edit", "burn it"))[0] == 400

    def test_what_is_typed_is_escaped(self, url):
        for query in ([("problem", ATTACK)], [("problem", "47 + 85"), ("edit", ATTACK)], [("problem", '"><script>')]):
            status, _, text = get(url, *query)
            assert (status, "script" in Outline(text).tags) == (400 if "edit" in dict(query) else 200, False)

    def test_only_this_machine_under_its_own_name_is_served(self, url):
        assert get(url, Host="evil.example")[0] == 400
        assert get(url + "other")[0] == 404

    def test_a_port_in_use_is_said(self, url, at):
        with pytest.raises(PlayError, match="take another one, or 0 for one that is free"):
            bound(at, int(url.rstrip("/").rpartition(":")[2]))

    def test_an_interrupt_ends_it_in_peace(self, at, monkeypatch):
        def interrupted(server, sockets):
            raise KeyboardInterrupt

        monkeypatch.setattr("uvicorn.Server.run", interrupted)
        assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/", serve(at, 0)["url"])
