"""Experiment files: reading one, setting keys from the command line, comparing two.

A configuration is a Python file with `get_config(variant: str = "") -> ml_collections.ConfigDict`;
`configs/arithmetic.py:smoke` calls it with `smoke`. Such a file may import the files beside it by
their bare names, as a script does.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from glore_jax import records
from glore_jax.errors import InputError

PREFIX = "--config."
RUNTIME = ("devices", "sharding")  # by what a run computes, not what: a work folder goes on under others
ABSENT = "(not set)"
_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_EXAMPLES: dict[type, tuple[str, str]] = {
    bool: ("true or false", "true"),
    int: ("a whole number", "100"),
    float: ("a number", "0.5"),
    tuple: ("values with commas between", "1,2,3"),
    list: ("values with commas between", "1,2,3"),
}


def nearest(word: str, known: Iterable[str]) -> str:
    """Advice on a word that is not known: the nearest known ones, or else all of them.

    >>> nearest("labls", ["labels", "report"])
    'did you mean labels?'
    """
    options = sorted(set(known))
    close = difflib.get_close_matches(word, options, n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there are: {', '.join(options)}" if options else "there is none at all"


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads a configuration and sets the overridden keys.

    Args:
      spec: `path/to/file.py` or `path/to/file.py:variant`.
      overrides: `--config.a.b=value`, applied in order.

    Returns:
      The locked configuration: a key can be changed in it, but none added.

    Raises:
      InputError: no such file, not a configuration, an unknown key or a value of the wrong type.
    """
    name, colon, variant = spec.rpartition(":")
    if not colon or Path(spec).is_file():
        name, variant = spec, ""
    path = Path(name)
    if not path.is_file():
        folder = path.parent
        if not folder.is_dir():
            raise InputError(f"--config={spec}: no folder {folder} here; expected path/to/file.py[:variant]")
        advice = nearest(path.name, (file.name for file in folder.glob("*.py")))
        raise InputError(f"--config={spec}: no file {path}; of the files in {folder}, {advice}")
    config = _call(path, variant)
    for argument in overrides:
        override(config, argument)
    return config.lock()


def _call(path: Path, variant: str) -> ConfigDict:
    """What the file's `get_config` returns."""
    namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        # Compiled here, not imported: an import may take a stale cache where a file changed within a second.
        code = compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError) as error:
        where = f"{path}:{error.lineno}" if isinstance(error, SyntaxError) else f"{path}"
        raise InputError(f"{where}: not a Python file ({error}); expected one with get_config()") from error
    with _importable(path.resolve().parent):
        exec(code, namespace)
        get_config = namespace.get("get_config")
        if not callable(get_config):
            raise InputError(f"{path}: no function get_config in it; see the files in configs/ for how one looks")
        if variant and not inspect.signature(get_config).parameters:
            raise InputError(f"{path}:{variant}: its get_config() takes no variant; use --config={path}")
        config = get_config(variant) if variant else get_config()
    if not isinstance(config, ConfigDict):
        raise InputError(f"{path}: get_config() returned {type(config).__name__}, not an ml_collections.ConfigDict")
    return config


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Lets a configuration import its neighbours, and forgets them after, so that two folders never mix."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == folder:
                del sys.modules[name]


def leaves(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values of everything that is not itself a group; an empty group is a value.

    >>> leaves({"seed": 0, "train": {"steps": 10}})
    {'seed': 0, 'train.steps': 10}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, (Mapping, ConfigDict)) and len(value):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def override(config: ConfigDict, argument: str) -> None:
    """Sets one key in place from `--config.a.b=value`; its present value gives the type.

    Raises:
      InputError: no such key (names the nearest), a group, or a value of another type.
    """
    key, equals, text = argument.removeprefix(PREFIX).partition("=")
    known = leaves(config)
    if key not in known:
        inside = [other for other in known if other.startswith(f"{key}.")]
        if inside:
            raise InputError(f"{PREFIX}{key}: a group of keys; set one of them: {', '.join(inside)}")
        same_leaf = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
        advice = f"did you mean {' or '.join(same_leaf[:3])}?" if same_leaf else nearest(key, known)
        raise InputError(f"{PREFIX}{key}: no such key in the configuration; {advice}")
    *groups, leaf = key.split(".")
    parent: Any = config
    for group in groups:
        parent = parent[group]
    kind = parent.get_type(leaf)  # for a placeholder the type that it waits for, though it is None still
    expected, example = _EXAMPLES.get(kind, ("a value", "text"))
    hint = f"expected {expected}, e.g. {PREFIX}{key}={example}; it is {known[key]!r} now"
    if not equals:
        raise InputError(f"{argument}: no value given; {hint}")
    try:
        parent[leaf] = _parse(text, kind, known[key])
    except (ValueError, TypeError, SyntaxError) as error:
        raise InputError(f"{argument}: wrong type; {hint}") from error


def _parse(text: str, kind: type, present: Any) -> Any:
    """A command-line text as a value of a type; ValueError where it is none."""
    if present is None and text == "None":
        return None
    if kind is str:
        return text
    if kind is bool and text.lower() in _BOOLS:
        return _BOOLS[text.lower()]
    if kind in (int, float):
        return kind(text)
    if kind in (tuple, list):
        return kind(_parse_items(text, present or ()))
    if kind is type(None):
        return _literal(text)
    raise ValueError(text)


def _parse_items(text: str, present: Sequence[Any]) -> list[Any]:
    """Items of `1,2,3` or of a Python literal such as `(1, 2, 3)`; the present items give their type."""
    kinds = {type(item) for item in present}
    kind = float if kinds == {int, float} else kinds.pop() if len(kinds) == 1 else type(None)
    if not text.lstrip().startswith(("(", "[")):
        texts = [item.strip() for item in text.split(",") if item.strip()]
        return [_parse(item, kind, present[0] if present else None) for item in texts]
    items = list(ast.literal_eval(text.strip()))
    if kind is float:
        items = [float(item) if type(item) is int else item for item in items]
    if kind is not type(None) and any(type(item) is not kind for item in items):
        raise ValueError(text)
    return items


def _literal(text: str) -> Any:
    """A Python literal, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _values(config: ConfigDict | Mapping[str, Any]) -> Mapping[str, Any]:
    """Nested plain dicts, references resolved."""
    return config if isinstance(config, Mapping) else config.to_dict()


def to_json(config: ConfigDict | Mapping[str, Any]) -> str:
    """The configuration as indented JSON, references resolved; tuples become lists."""
    values = _values(config)
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def from_json(text: str) -> dict[str, Any]:
    """The nested dict that `to_json` wrote; InputError where it is not one."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"not whole JSON ({error}); expected a configuration as `to_json` writes it") from error
    if not isinstance(value, dict):
        raise InputError(f"a JSON {type(value).__name__}; expected an object of configuration keys")
    return value


def select(config: ConfigDict | Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Nested dict of the named dotted keys and groups alone.

    >>> select({"seed": 0, "train": {"steps": 10, "rate": 0.1}}, ["train.steps"])
    {'train': {'steps': 10}}

    Raises:
      InputError: a key that the configuration lacks.
    """
    values = _values(config)
    chosen: dict[str, Any] = {}
    for key in keys:
        *groups, leaf = key.split(".")
        source, target = values, chosen
        for group in groups:
            source = source.get(group) if isinstance(source, Mapping) else None
            target = target.setdefault(group, {})
        if not isinstance(source, Mapping) or leaf not in source:
            raise InputError(f"the configuration has no key {key}, which is needed; {nearest(key, leaves(values))}")
        target[leaf] = source[leaf]
    return chosen


def lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """What results depend on: all but the keys and groups of `RUNTIME`."""
    return {key: value for key, value in config.items() if key not in RUNTIME}


def fingerprint(config: ConfigDict | Mapping[str, Any]) -> str:
    """Sixteen hex digits that change when any value changes; a tuple and a list of the same items are one."""
    return records.fingerprint(json.loads(to_json(config)))


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Dotted keys whose values differ, with both values; `(not set)` stands where a side lacks the key.

    >>> differences({"seed": 0, "train": {"steps": 10}}, {"seed": 1, "train": {"steps": 10}})
    [('seed', 0, 1)]
    """
    there, here = leaves(json.loads(to_json(a))), leaves(json.loads(to_json(b)))
    keys = sorted(set(there) | set(here))
    pairs = [(key, there.get(key, ABSENT), here.get(key, ABSENT)) for key in keys]
    return [(key, left, right) for key, left, right in pairs if left != right or type(left) is not type(right)]
