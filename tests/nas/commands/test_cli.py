"""The command as a whole: help, version, what it loads, how it ends."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.nas.commands.conftest import environment, run
from tests.partialnet.data import made

COMMANDS = [
    *("run", "studies", "pareto", "trial", "report", "pause", "resume", "stop", "optuna-mirror"),
    *("model", "cam", "bench", "export", "predict", "train"),
    *("serve", "worker", "datasets", "doctor", "gc", "pin"),
]
GROUPS = {
    "probe": ("network", "table", "serve"),
    "db": ("status", "upgrade"),
    "study": ("show", "export", "import"),
    "trainings": ("list", "show", "stop", "resume", "package", "delete"),
    "token": ("create", "list", "revoke", "link"),
}


def test_help_lists_all_commands(nas):
    code, out, _ = nas("--help")
    assert code == 0
    # No command more: those below are loaded one by one, and one that is left out there would have no test.
    assert set(re.findall(r"^│ ([a-z][a-z-]+) ", out, re.MULTILINE)) == {*COMMANDS, *GROUPS}
    for group, names in GROUPS.items():
        listed = nas(group, "--help")[1]
        assert set(re.findall(r"^│ ([a-z][a-z-]+) ", listed, re.MULTILINE)) == set(names)


@pytest.mark.parametrize(
    "command", [*((name,) for name in COMMANDS), *((group, name) for group, names in GROUPS.items() for name in names)]
)
def test_help_has_a_summary_and_examples(nas, command):
    code, out, _ = nas(*command, "--help")
    assert code == 0
    assert "Examples:" in out
    usual = " ".join(command).replace("study show", "study")
    assert f"  nas {usual} " in out or f"  nas {usual}\n" in re.sub(" +\n", "\n", out)
    # a parameter without a word of explanation is a bug in the help
    assert "No help" not in out
    assert "[[" not in out


def test_version(nas):
    code, out, _ = nas("--version")
    assert code == 0
    assert out.startswith("nas ")


@pytest.mark.parametrize("arguments", [[], ["db"]])
def test_without_a_command_help_is_shown(nas, arguments):
    code, out, err = nas(*arguments)
    assert code == 2
    assert "Usage: nas" in out + err


def test_nothing_heavy_is_loaded_early(nas, tmp_path):
    assert nas("db", "upgrade")[0] == 0
    code = (
        "import sys\n"
        "from nas.cli import _invoke\n"
        "for line in ('--help', 'studies', 'pareto none'):\n"
        "    sys.argv = ['nas', *line.split()]\n"
        "    _invoke()\n"
        "    print([name for name in ('torch', 'ray', 'kaleido') if name in sys.modules], 'after', line)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    told = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert told == ["[] after --help", "[] after studies", "[] after pareto none"], done.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path):
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m nas.cli db upgrade | true"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


def test_database_commands(nas, tmp_path):
    code, out, _ = nas("db", "upgrade")
    assert code == 0
    assert "schema none -> " in out
    code, out, _ = nas("db", "upgrade")
    assert "nothing to do" in out
    code, out, _ = nas("db", "status")
    assert code == 0
    assert "current; 0 studies" in out
    code, out, err = nas("studies")
    assert code == 0
    assert "nas run" in err
    assert list(tmp_path.glob("*.backup")) == []


def test_settings_from_the_environment(nas, monkeypatch, tmp_path):
    monkeypatch.setenv("NAS_DATABASE_URL", f"sqlite:///{tmp_path / 'other.db'}")
    assert nas("db", "upgrade")[0] == 0
    assert (tmp_path / "other.db").exists()
    assert nas("db", "upgrade", "--database", f"sqlite:///{tmp_path / 'third.db'}")[0] == 0
    assert (tmp_path / "third.db").exists()


def test_datasets(nas, tmp_path):
    for name in ("train/cat", "train/dog", "other/cat"):
        (tmp_path / "pets" / name).mkdir(parents=True)
    code, out, _ = nas("datasets", "--data-root", tmp_path)
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert "built in (1,437 training images)" in rows["digits"]
    assert rows["cifar10"].rstrip().endswith("no")
    assert str(tmp_path / "pets") in "".join(out.split())  # a long path goes on in the next line, and none is cut
    assert str(tmp_path) in rows["data"] or "data roots" in out


@pytest.mark.parametrize("odd", ["cifar-100-python/train", "pets2/train", "fashion-mnist", "cifar10", "dead", "circle"])
def test_datasets_expects_any_answer_of_the_file_system(nas, tmp_path, odd):
    """A file where a folder is expected, links that lead nowhere or back: they hide nothing of what else is there."""
    for name in ("train/cat", "train/dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
    (tmp_path / odd).parent.mkdir(exist_ok=True)
    if odd in ("dead", "circle"):
        (tmp_path / odd).symlink_to("gone" if odd == "dead" else odd)
    else:
        (tmp_path / odd).touch()
    code, out, err = nas("datasets", "--data-root", tmp_path)
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert str(tmp_path / "pets") in "".join(out.split())  # a long path goes on in the next line, and none is cut
    assert {"digits", "cifar10", "cifar100", "fashion_mnist"} <= set(rows)


def test_datasets_tells_damage_from_absence_and_what_is_left_out(nas, tmp_path, monkeypatch):
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "train").touch()
    made.class_folders(tmp_path / "cifar10", ("train",), made.CIFAR10_CLASSES, per_class=2)
    (tmp_path / "cifar10" / "train" / "dog" / "notes.txt").touch()
    code, out, _ = nas("datasets", "--data-root", tmp_path)
    assert code == 0
    words = " ".join(out.split())
    assert "damaged: " in words
    assert "test, meta missing" in words
    assert "(20 training images)" in words
    assert f"{tmp_path}/cifar10/train: files that end in .txt: 1 left out, such as dog/notes.txt" in words


def test_module_and_script_are_the_same(tmp_path):
    code, out, _ = run("--version", cwd=tmp_path)
    assert code == 0
    assert out.startswith("nas ")


def test_help_is_wrapped_between_words_for_the_terminal_at_hand(nas, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = nas("serve", "--help")
    assert code == 0
    text = [line.strip() for line in out.partition("Examples:")[0].splitlines()]
    prose = text[text.index(next(line for line in text if line.startswith("By default, only this"))) :]
    words = " ".join(prose).split("  ")[0]
    # each line but the last is as full as the next word allows
    filled = [line for line in prose if line][:-1]
    assert len(words) > 120
    assert all(len(line) > 40 for line in filled), filled
