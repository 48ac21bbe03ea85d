"""What is recorded about a run, and what must never be."""

import platform
import subprocess
import sys

import pytest

from latent_lab.provenance import _git_state, provenance, redact, redact_command


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_KEY", "abcd-1234-efgh")
    monkeypatch.setenv("SHORT_TOKEN", "test")
    monkeypatch.setenv("PLAIN_VARIABLE", "nothing-secret")


@pytest.mark.parametrize(
    "key",
    [
        "key",
        "token",
        "api_key",
        "apikey",
        "openai_api_key",
        "hf_token",
        "client_secret",
        "password",
        "db.passwd",
        "credentials",
        "API_KEY",
    ],
)
def test_text_under_a_secret_name_is_masked(key):
    assert redact({key: "x"}) == {key: "***"}


@pytest.mark.parametrize(
    "key",
    [
        "tokenizer",
        "max_new_tokens",
        "latent_tokens",
        "eos_token",
        "model.pad_token",
        "question_key",
        "keys",
        "keyboard",
        "api_key_env",
    ],
)
def test_other_names_are_not(key):
    assert redact({key: "x"}) == {key: "x"}


def test_secrets_are_found_at_any_depth_and_only_text_is_masked(environment):
    config = {
        "judge": {
            "model": "m",
            "api_key": "sk-1",
            "credentials": {"user": "u", "ids": ["a", 1]},
            "url": "https://abcd-1234-efgh@host",
        },
        "token": None,
        "key": 3,
        "password": "",
        "split": "test",
        "note": "nothing-secret",
        "betas": (0.9, 0.98),
    }
    assert redact(config) == {
        "judge": {"model": "m", "api_key": "***", "credentials": {"user": "***", "ids": ["***", 1]}, "url": "https://***@host"},
        "token": None,
        "key": 3,
        "password": "",
        "split": "test",
        "note": "nothing-secret",
        "betas": [0.9, 0.98],
    }
    assert config["judge"]["api_key"] == "sk-1"


def test_command_lines_are_masked_too(environment):
    command = [
        "latent_lab.eval",
        "judge.api_key=sk[1]'2",
        "+hub.token=a b",
        "judge={api_key: 'sk, 1', model: m}",
        "--password=p",
        "x=y",
    ]
    assert redact_command(command) == [
        "latent_lab.eval",
        "judge.api_key=***",
        "+hub.token=***",
        "judge={api_key: ***, model: m}",
        "--password=***",
        "x=y",
    ]
    assert redact_command(["name=run-abcd-1234-efgh", "model.eos_token=</s>"]) == ["name=run-***", "model.eos_token=</s>"]


def test_provenance_says_what_ran_where_with_which_versions(environment):
    record = provenance(["train", "judge.api_key=sk-1"])
    assert list(record) == ["command", "started", "git", "python", "packages", "platform", "host", "cpu_count"]
    assert record["command"] == ["train", "judge.api_key=***"]
    assert record["started"].endswith("+00:00")
    assert record["python"] == platform.python_version()
    assert {"torch", "transformers", "accelerate", "hydra-core", "numpy"} <= set(record["packages"])
    assert "abcd-1234" not in str(record)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")

    def git(*arguments):
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *author, *arguments], check=True, capture_output=True, text=True
        ).stdout

    (tmp_path / "module.py").write_text("x = 1\n")
    git("init")
    git("add", "module.py")
    git("commit", "-m", "first")
    return tmp_path, git("rev-parse", "HEAD").strip()


def test_git_state_tells_a_clean_tree_from_a_changed_one(checkout):
    folder, revision = checkout
    module = str(folder / "module.py")
    assert _git_state(module) == {"revision": revision, "dirty": False, "changes": None}
    hashes = set()
    for text in ("x = 2\n", "x = 3\n"):
        (folder / "module.py").write_text(text)
        state = _git_state(module)
        assert (state["revision"], state["dirty"], len(state["changes"])) == (revision, True, 16)
        assert _git_state(module) == state
        hashes.add(state["changes"])
    assert len(hashes) == 2


def test_git_says_nothing_about_a_package_that_only_lies_inside_a_checkout(checkout):
    folder, _ = checkout
    (folder / ".venv").mkdir()
    (folder / ".venv" / "module.py").write_text("")
    assert _git_state(str(folder / ".venv" / "module.py")) is None


def test_the_command_line_pays_for_no_heavy_import():
    code = (
        "import sys, latent_lab.run, latent_lab.tracking, latent_lab.progress\n"
        "print(sorted({'torch', 'transformers', 'accelerate', 'wandb', 'trackio', 'numpy', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
