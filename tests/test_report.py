"""`jobs.report`: a page made again from files, or of several runs; what it refuses."""

from pathlib import Path

import pytest

from jobs.report import main
from qa_core.errors import ConfigError, DataError
from tests.pages import make_examples, write_run


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two runs on the same questions."""
    examples = make_examples(12)
    return [str(write_run(tmp_path / n, examples, seed=s)) for n, s in (("a", 0), ("b", 1))]


def test_a_page_is_made_again_in_its_run(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """From the run's files alone, in its folder; the last line says where."""
    main([f"{runs[0]}/"])
    file = Path(runs[0]) / "report.html"
    assert "<title>Training a</title>" in file.read_text()
    assert str(file) in capsys.readouterr().out


def test_several_runs_have_a_page_beside_them(runs: list[str], tmp_path: Path) -> None:
    """Or where `--out` says."""
    main(runs)
    assert "<title>2 runs</title>" in (tmp_path / "comparison.html").read_text()
    main([*runs, "--out", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "comparison.html").read_bytes()


def test_what_is_missing_is_told(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """On the terminal, too."""
    (Path(runs[0]) / "metrics.json").unlink()
    main(runs[:1])
    assert "warning: a: This run is not finished" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], ConfigError, "no run is named"),
        (["--out", "x.html"], ConfigError, "no run is named"),
        (["nowhere"], DataError, r"nowhere: there is no config\.yaml"),
        (["nowhere", "--oot", "x"], ConfigError, "unknown key 'oot'.*'out'"),
    ],
)
def test_wrong_command_lines_say_what_is_wrong(
    arguments: list[str], error: type[Exception], message: str
) -> None:
    """Before anything is written."""
    with pytest.raises(error, match=message):
        main(arguments)
