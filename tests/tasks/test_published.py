"""GSM8K and SVAMP: from published files to problems, and what is refused with its file and line."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import public_data
import pytest
from ml_collections import ConfigDict
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.utils import Size

from glore_jax import answers, tasks
from glore_jax.errors import InputError
from glore_jax.records import Problem
from glore_jax.tasks import gsm8k, published, svamp, tfds_builder
from glore_jax.tasks.splits import same_question


def task(name: str, manual_dir: object = "", data_dir: object = "", train: int = 0) -> ConfigDict:
    places = {"manual_dir": str(manual_dir), "data_dir": str(data_dir)}
    return ConfigDict({"name": name, **places, "train": train, "dev": 0, "test": 0})


def worked(i: int) -> dict[str, str]:
    return {"question": f"What is {i} and 2? ", "answer": f"It is {i}+2=<<{i}+2={i + 2}>>{i + 2}.\n#### {i + 2}"}


def entry(i: int, **changes: Any) -> dict[str, Any]:
    same = {"ID": f"chal-{i}", "Body": f"Ann {'very ' * i}gladly has {i} nuts.", "Question": "How many with 2 more?"}
    return same | {"Equation": f"( {i}.0 + 2.0 )", "Answer": i + 2.0, "Type": "Addition"} | changes


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small files under the published names."""
    (tmp_path / "train.jsonl").write_text(lines([worked(i) for i in range(60)]))
    (tmp_path / "test.jsonl").write_text(lines([worked(i) for i in range(100, 110)]))
    (tmp_path / "SVAMP.json").write_text(json.dumps([entry(i) for i in range(60)]))
    return tmp_path


def all_of(splits: tasks.Splits) -> list[Problem]:
    return [*splits.train, *splits.dev, *splits.test]


def test_gsm8k_from_a_folder(folder: Path):
    splits = tasks.load(task("gsm8k", folder))
    assert [p.id for p in splits.test] == [f"test-line-{i}" for i in range(1, 11)]
    assert splits.test[0] == Problem(
        "test-line-1", "What is 100 and 2?", "102", "It is 100+2=<<100+2=102>>102.\n#### 102"
    )
    assert len(splits.train) + len(splits.dev) == 60
    assert 1 <= len(splits.dev) <= 20
    assert all(p.id.startswith("dev-line-") for p in splits.dev)


def test_svamp_from_a_folder(folder: Path):
    splits = tasks.load(task("svamp", folder))
    assert sorted(p.id.partition("-")[2] for p in all_of(splits)) == sorted(f"chal-{i}" for i in range(60))
    assert min(len(splits.train), len(splits.dev), len(splits.test)) >= 1
    by_id = {p.id.partition("-")[2]: p for p in all_of(splits)}
    assert by_id["chal-3"].question == "Ann very very very gladly has 3 nuts. How many with 2 more?"
    assert by_id["chal-3"].answer == "5"
    assert by_id["chal-3"].solution == "3+2 = <<3+2=5>>5\n#### 5"


def test_the_first_problems_of_a_split_alone(folder: Path):
    whole, few = tasks.load(task("gsm8k", folder)), tasks.load(task("gsm8k", folder, train=3))
    assert few.train == whole.train[:3]
    assert (few.dev, few.test) == (whole.dev, whole.test)
    with pytest.raises(InputError, match=r"task\.train=-1: expected how many problems to use, or 0"):
        tasks.load(task("gsm8k", folder, train=-1))


def test_what_a_folder_holds_is_read_anew(folder: Path):
    before = tasks.load(task("gsm8k", folder))
    (folder / "test.jsonl").write_text(lines([worked(500)]))
    after = tasks.load(task("gsm8k", folder))
    assert [p.answer for p in after.test] == ["502"]
    assert after.train == before.train


def test_the_files_that_a_task_reads(folder: Path):
    assert tasks.files_of(task("gsm8k", folder)) == [folder / "train.jsonl", folder / "test.jsonl"]
    assert tasks.files_of(task("svamp", folder)) == [folder / "SVAMP.json"]
    assert tasks.files_of(task("gsm8k")) == []
    assert tasks.oracle("gsm8k") is None


def test_which_split_a_question_is_in_is_a_matter_of_the_question(folder: Path):
    dev = {p.question for p in tasks.load(task("gsm8k", folder)).dev}
    (folder / "train.jsonl").write_text(lines([worked(i) for i in reversed(range(90))]))
    assert dev < {p.question for p in tasks.load(task("gsm8k", folder)).dev}


def test_a_test_question_in_train_is_refused(folder: Path):
    with (folder / "test.jsonl").open("a") as file:
        file.write(lines([{**worked(7), "question": "What is  7 and 2?"}]))
    with pytest.raises(InputError, match=r"task\.(train|dev) and task\.test share 1 questions, such as 'What is 7"):
        tasks.load(task("gsm8k", folder))


@pytest.mark.parametrize("name", ["gsm8k", "svamp"])
def test_missing_files_are_named(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=r"task\.manual_dir lacks .*(test\.jsonl|SVAMP\.json).*https://"):
        tasks.load(task(name, tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"question": ', "not JSON"),
        ("[1]", "expected an object with question and answer, found list"),
        ('{"question": "a", "response": "#### 1"}', "column 'answer', found None; the columns are 'question', 'respon"),
        ('{"question": 3, "answer": "#### 1"}', "expected text in the column 'question', found 3"),
        ('{"question": " ", "answer": "#### 1"}', "expected text in the column 'question', found ' '"),
        ('{"question": "a", "answer": "12"}', "the answer must end with '####' and a number, found '12'"),
        ('{"question": "a", "answer": "x\\n#### many"}', "the answer must end with '####' and a number"),
        (json.dumps(worked(1)), "the question of line 2 again; remove one"),
    ],
)
def test_a_bad_line_of_gsm8k_is_named(folder: Path, bad: str, message: str):
    (folder / "test.jsonl").write_text(lines([worked(0), worked(1)]) + "\n" + bad + "\n")
    with pytest.raises(InputError, match=rf"test\.jsonl, line 4: .*{message}"):
        tasks.load(task("gsm8k", folder))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (7, "expected an object with ID, Body, Question, Equation, Answer, found 7"),
        ({"Body": "a"}, "expected a number in the column 'Answer', found None"),
        (entry(9, Answer="many"), "the answer 'many' holds no number"),
        (entry(9, Answer=True), "expected a number in the column 'Answer', found True"),
        (entry(9, Question=""), "expected text in the column 'Question', found ''"),
        (entry(9, Equation="( 2.0 ** 9.0 )"), r"the equation .* cannot be worked out \(it has more than numbers"),
        (entry(9, Equation="( 2.0 / 0.0 )"), "cannot be worked out"),
        (entry(9, Equation="2.0 +"), "cannot be worked out"),
        (entry(9, Equation="__import__('os')"), "cannot be worked out"),
        (entry(1), "the question of entry 2 again; remove one"),
    ],
)
def test_a_bad_entry_of_svamp_is_named(folder: Path, bad: object, message: str):
    (folder / "SVAMP.json").write_text(json.dumps([entry(0), entry(1), bad]))
    with pytest.raises(InputError, match=rf"SVAMP\.json, entry 3: .*{message}"):
        tasks.load(task("svamp", folder))


@pytest.mark.parametrize("text", ["", "{}", "[]", "[{"])
def test_a_file_that_is_no_list_of_problems_is_named(folder: Path, text: str):
    (folder / "SVAMP.json").write_text(text)
    with pytest.raises(InputError, match=r"SVAMP\.json: .*expected (SVAMP's|a) list of problems"):
        tasks.load(task("svamp", folder))


def test_an_equation_is_worked_out_from_the_inside():
    solution = svamp.problem(1, {k: str(v) for k, v in entry(0, Equation="( ( 7 - 4.5 ) * 2 )", Answer=5).items()})
    assert solution.solution == "7-4.5 = <<7-4.5=2.5>>2.5\n2.5*2 = <<2.5*2=5>>5\n#### 5"
    third = svamp.problem(1, {k: str(v) for k, v in entry(0, Equation="( 1 / 3 ) * 6", Answer=2).items()})
    assert third.solution == "1/3 = <<1/3=1/3>>1/3\n1/3*6 = <<1/3*6=2>>2\n#### 2"


def test_without_tfds_the_installation_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "glore_jax.tasks.tfds_builder", None)
    monkeypatch.delattr(tasks, "tfds_builder")
    with pytest.raises(InputError, match=r"task\.name='gsm8k' needs TFDS .*pip install 'glore_jax\[datasets\]'"):
        tasks.load(task("gsm8k", folder))


def test_tensorflow_is_not_needed(folder: Path):
    tasks.load(task("svamp", folder))
    assert "tensorflow" not in sys.modules


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[published.DataSet]:
    """GSM8K as a server on this machine has it, with the checksums of what it serves."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        data_set = published.DataSet(
            "gsm8k", {part: f"{place}/{part}.jsonl" for part in ("train", "test")}, ("question", "answer"), gsm8k.rows
        )
        files = [folder / f"{part}.jsonl" for part in ("train", "test")]
        sums = {
            f"{place}/{f.name}": UrlInfo(Size(f.stat().st_size), hashlib.sha256(f.read_bytes()).hexdigest(), f.name)
            for f in files
        }
        monkeypatch.setattr(tfds_builder.GloreTasks, "url_infos", sums)
        yield data_set
        server.shutdown()


def test_published_files_are_downloaded_once(served: published.DataSet, folder: Path, tmp_path: Path):
    first = published.read(served, "", str(tmp_path / "kept"))
    assert [row["question"] for _, row in first["test"]] == [f"What is {i} and 2?" for i in range(100, 110)]
    (folder / "test.jsonl").unlink()
    assert published.read(served, "", str(tmp_path / "kept")) == first


def test_another_file_than_the_published_one_is_refused(served: published.DataSet, folder: Path, tmp_path: Path):
    with (folder / "test.jsonl").open("a") as file:
        file.write(lines([worked(999)]))
    with pytest.raises(InputError, match=r"(?s)gsm8k: its files cannot be had .*--config\.task\.manual_dir"):
        published.read(served, "", str(tmp_path / "kept"))


def test_a_refused_download_says_what_to_do(served: published.DataSet, folder: Path, tmp_path: Path):
    (folder / "test.jsonl").unlink()
    with pytest.raises(InputError, match=r"(?s)gsm8k: its files cannot be had .*404.*--config\.task\.manual_dir"):
        published.read(served, "", str(tmp_path / "kept"))


def test_the_checksums_are_of_the_published_files():
    table = (Path(published.__file__).with_name("checksums.tsv")).read_text().splitlines()
    rows = {url: (int(size), digest) for url, size, digest, _ in (line.split("\t") for line in table)}
    assert set(rows) == {url for module in (gsm8k, svamp) for url in module.DATA_SET.urls.values()}
    for module in (gsm8k, svamp):
        folder = public_data.folder(module.DATA_SET.name)
        for part, path in module.DATA_SET.files(folder).items():
            content = path.read_bytes()
            assert rows[module.DATA_SET.urls[part]] == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(("name", "sizes"), [("gsm8k", (6757, 716, 1319)), ("svamp", (613, 114, 273))])
def test_the_published_problems(name: str, sizes: tuple[int, int, int]):
    folder = public_data.folder(name)
    splits = tasks.load(task(name, folder))
    assert (len(splits.train), len(splits.dev), len(splits.test)) == sizes
    questions = [{same_question(p.question) for p in rows} for rows in (splits.train, splits.dev, splits.test)]
    assert len(set.union(*questions)) == sum(sizes), "a question is in two splits, or twice in one"
    assert all(answers.parse_number(p.answer) is not None for p in all_of(splits))
    unsolved = [p.id for p in all_of(splits) if not answers.equal(answers.final_answer(p.solution), p.answer)]
    assert unsolved == ([] if name == "gsm8k" else ["train-chal-680"])


def test_no_test_question_of_gsm8k_is_trained_on():
    """Held against the published file itself, not against what the loader calls test."""
    folder = public_data.folder("gsm8k")
    text = (folder / "test.jsonl").read_text(encoding="utf-8")
    published_test = {same_question(json.loads(line)["question"]) for line in text.splitlines()}
    splits = tasks.load(task("gsm8k", folder))
    assert not published_test & {same_question(p.question) for p in (*splits.train, *splits.dev)}
    assert published_test == {same_question(p.question) for p in splits.test}


def test_no_story_of_svamp_is_in_two_splits():
    folder = public_data.folder("svamp")
    body = {row["ID"]: row["Body"] for _, row in svamp.rows(folder / "SVAMP.json")}
    splits = tasks.load(task("svamp", folder))
    stories = [
        {svamp.story(body[p.id.partition("-")[2]]) for p in rows} for rows in (splits.train, splits.dev, splits.test)
    ]
    assert sum(map(len, stories)) == len(set.union(*stories))
