"""Reading experiment files, setting keys, comparing configurations."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from glore_jax import configuration
from glore_jax.errors import InputError

FILE = """
    from ml_collections import ConfigDict, config_dict
    from glore_jax.errors import InputError
    import shared_sizes

    def get_config(variant=""):
        if variant not in ("", "smoke"):
            raise InputError(f"no variant {variant}; there is smoke")
        config = ConfigDict()
        config.seed = 0
        config.fast = False
        config.name = "toy"
        config.limit = config_dict.placeholder(int)
        config.anything = None
        config.train = ConfigDict({"steps": shared_sizes.STEPS, "rate": 0.1, "sizes": (1, 2), "words": ["a"]})
        config.eval = ConfigDict({"steps": 5, "empty": ()})
        if variant == "smoke":
            config.train.steps = 2
        return config
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "toy.py").write_text(textwrap.dedent(FILE))
    (tmp_path / "shared_sizes.py").write_text("STEPS = 10\n")
    return tmp_path / "toy.py"


def test_a_file_its_variant_and_a_neighbour_are_read(path: Path):
    config: Any = configuration.load(str(path))
    assert config.train.steps == 10
    config = configuration.load(f"{path}:smoke")
    assert config.train.steps == 2
    # A changed neighbour is read again, not remembered from another file's folder.
    (path.parent / "shared_sizes.py").write_text("STEPS = 11_000\n")
    config = configuration.load(str(path))
    assert config.train.steps == 11_000


def test_an_unknown_variant_is_the_files_own_error(path: Path):
    with pytest.raises(InputError, match="no variant smok; there is smoke"):
        configuration.load(f"{path}:smok")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", r"bad\.py:1: not a Python file"),
        ("x = 1\n", "no function get_config"),
        ("def get_config():\n    return {}\n", "returned dict, not an ml_collections.ConfigDict"),
    ],
)
def test_a_file_that_is_no_configuration_says_why(tmp_path: Path, text: str, message: str):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(InputError, match=message):
        configuration.load(str(tmp_path / "bad.py"))


def test_a_variant_of_a_file_without_variants_is_refused(tmp_path: Path):
    (tmp_path / "one.py").write_text("def get_config():\n    raise AssertionError\n")
    with pytest.raises(InputError, match="takes no variant"):
        configuration.load(f"{tmp_path / 'one.py'}:smoke")


def test_a_missing_file_names_the_nearest_one(path: Path):
    with pytest.raises(InputError, match=r"no file .*toi\.py.*did you mean toy\.py"):
        configuration.load(f"{path.with_name('toi.py')}:smoke")
    with pytest.raises(InputError, match="no folder"):
        configuration.load(str(path.parent / "nowhere" / "toy.py"))


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("seed=-1", "seed", -1),
        ("fast=true", "fast", True),
        ("fast=No", "fast", False),
        ("name=12", "name", "12"),
        ("name=a=b", "name", "a=b"),
        ("name=", "name", ""),
        ("limit=7", "limit", 7),
        ("limit=None", "limit", None),
        ("anything=0.5", "anything", 0.5),
        ("anything=word", "anything", "word"),
        ("anything=None", "anything", None),
        ("train.rate=1", "train.rate", 1.0),
        ("train.rate=3e-4", "train.rate", 3e-4),
        ("train.sizes=3,4,5", "train.sizes", (3, 4, 5)),
        ("train.sizes=(3, 4)", "train.sizes", (3, 4)),
        ("train.sizes=[3]", "train.sizes", (3,)),
        ("train.sizes=", "train.sizes", ()),
        ("train.words=b,c", "train.words", ["b", "c"]),
        ("eval.empty=1,x", "eval.empty", (1, "x")),
    ],
)
def test_an_override_takes_the_type_of_the_present_value(path: Path, text: str, key: str, value: object):
    config = configuration.load(str(path), [f"--config.{text}"])
    found = configuration.leaves(config)[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=three", "expected a whole number, e.g. --config.seed=100; it is 0 now"),
        ("seed=1.5", "expected a whole number"),
        ("seed=None", "expected a whole number"),
        ("limit=x", "expected a whole number"),
        ("fast=2", "expected true or false, e.g. --config.fast=true"),
        ("train.rate=high", "expected a number, e.g. --config.train.rate=0.5"),
        ("train.sizes=1,b", "expected values with commas between, e.g. --config.train.sizes=1,2,3"),
        ("train.sizes=(1, 2.5)", "expected values with commas between"),
        ("train.sizes=(1,", "expected values with commas between"),
        ("seed", "no value given; expected a whole number"),
    ],
)
def test_a_wrong_type_names_key_type_and_example(path: Path, text: str, expected: str):
    with pytest.raises(InputError) as error:
        configuration.load(str(path), [f"--config.{text}"])
    assert str(error.value).startswith(f"--config.{text}: ")
    assert expected in str(error.value)


def test_an_unknown_key_names_the_nearest(path: Path):
    with pytest.raises(InputError, match=r"trian\.step: no such key .* did you mean train\.steps"):
        configuration.load(str(path), ["--config.trian.step=3"])
    with pytest.raises(InputError, match=r"did you mean eval\.steps or train\.steps"):
        configuration.load(str(path), ["--config.steps=3"])
    with pytest.raises(InputError, match=r"there are: anything, eval\.empty"):
        configuration.load(str(path), ["--config.zzzzzzzz=3"])
    with pytest.raises(InputError, match=r"a group of keys; set one of them: eval\.empty, eval\.steps"):
        configuration.load(str(path), ["--config.eval=3"])


def test_the_configuration_is_locked(path: Path):
    with pytest.raises(AttributeError):
        configuration.load(str(path)).new_key = 1


_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab", max_size=2)
_keys = st.sampled_from(["a", "b", "c"])
_trees = st.dictionaries(
    _keys,
    _scalars | st.lists(_scalars, max_size=2) | st.dictionaries(_keys, _scalars, max_size=2),
    max_size=3,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_trees, _trees)
def test_fingerprints_are_equal_where_nothing_differs(a: dict, b: dict):
    assert configuration.differences(a, a) == []
    same = configuration.to_json(a) == configuration.to_json(b)
    assert (configuration.fingerprint(a) == configuration.fingerprint(b)) == same
    assert (configuration.differences(a, b) == []) == same
    assert configuration.from_json(configuration.to_json(a)) == a


def test_json_keeps_the_fingerprint_though_tuples_become_lists():
    config = ConfigDict({"sizes": (1, 2), "train": {"rate": 0.1}})
    back = configuration.from_json(configuration.to_json(config))
    assert back == {"sizes": [1, 2], "train": {"rate": 0.1}}
    assert configuration.fingerprint(ConfigDict(back)) == configuration.fingerprint(config)


def test_differences_show_both_sides_and_absent_keys():
    found = configuration.differences({"a": 1, "t": {"x": 1, "y": [2]}}, {"t": {"x": 1, "y": [3]}, "z": None})
    assert found == [("a", 1, "(not set)"), ("t.y", [2], [3]), ("z", "(not set)", None)]


def test_select_takes_groups_and_keys_and_names_a_missing_one():
    values = {"seed": 0, "train": {"steps": 10, "rate": 0.1}, "task": {"name": "toy"}}
    assert configuration.select(values, ["train.steps", "task"]) == {"train": {"steps": 10}, "task": {"name": "toy"}}
    with pytest.raises(InputError, match=r"no key train\.step, .* did you mean train\.steps"):
        configuration.select(values, ["train.step"])
    with pytest.raises(InputError, match=r"no key seed\.x"):
        configuration.select(values, ["seed.x"])


@pytest.mark.parametrize("text", ["[1]", "{", "3"])
def test_other_json_is_refused(text: str):
    with pytest.raises(InputError):
        configuration.from_json(text)
