"""Small files of unknown origin: bounded, strict, and not read again before they change."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage3.config import Config
from stage3.errors import ConfigError, StorageError
from stage3.small_files import MAX_YAML, Record, Remembered, parse_yaml, path_problem, read_yaml
from stage3.strict_json import parse_object


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data: 2001-13-45\nseed: 1:59:59:59:59:59:59:59:59:59:59:59:59", "63 bits"),
        ("seed: " + "9" * 5000, "5000 digits"),
        ("seed: 9223372036854775808", "63 bits"),
        ('seed: !!int "abc"', "tags"),
        ('seed: !!int ""', "tags"),
        ("on: !!bool perhaps", "tags"),
        ("a: !!timestamp abc", "tags"),
        ("a: !!python/object/apply:os.getcwd []", "tags"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: &x [*x]", "aliases"),
        ("a: " + "[" * 20_000, "nested more than"),
        ("seed: 1\nlr: 2\nseed: 3", "line 3: 'seed' occurs twice"),
        ("? [a, b]\n: 1", "must be a text"),
        ("a: \x00", "special characters"),
        ("- 1", "found a list"),
        ("just words", "found a str"),
    ],
)
def test_yaml_that_is_more_than_names_and_values_is_refused_in_one_line(tmp_path, text, reason):
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    before = time.process_time()
    with pytest.raises(ConfigError, match=reason) as caught:
        read_yaml(path)
    assert time.process_time() - before < 3
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(path))


def test_dates_are_texts_and_settings_stay_what_they_were(tmp_path):
    assert parse_yaml(b"data: 2001-12-14\nname: 2001-13-45", tmp_path) == {"data": "2001-12-14", "name": "2001-13-45"}
    config = Config(seed=7, keep_labels=("story", "42"), remap=("a=b",), lr=1e-3, data="C:\\comics\\été")
    (tmp_path / "c.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert Config.load(tmp_path / "c.yaml") == config


@given(st.binary(max_size=200))
def test_any_bytes_are_a_mapping_or_refused(data):
    reason = ""
    try:
        assert isinstance(parse_yaml(data, "x"), dict)
    except ConfigError as error:
        reason = str(error)
    assert "\n" not in reason


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_folders_large_and_missing_files_are_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * (MAX_YAML + 1))
    (tmp_path / "folder").mkdir()
    for name, reason in (
        ("pipe", "not a regular file"),
        ("large", "more than"),
        ("folder", "is a folder"),
        ("no", "no such"),
    ):
        with pytest.raises(ConfigError, match=reason):
            read_yaml(tmp_path / name)
    (tmp_path / "linked").symlink_to(tmp_path / "own.yaml")
    (tmp_path / "own.yaml").write_text("seed: 1", encoding="utf-8")
    assert read_yaml(tmp_path / "linked") == {"seed": 1}  # what a person names may be a link


def test_a_file_that_cannot_be_read_is_not_read_again_until_it_changes(tmp_path):
    path, read = tmp_path / "a.yaml", []

    def reading(at):
        read.append(at)
        return read_yaml(at)

    known = Remembered(reading)
    path.write_text("a: *x", encoding="utf-8")
    for _ in range(3):
        with pytest.raises(ConfigError, match="aliases"):
            known(path)
    assert len(read) == 1
    path.write_text("a: 12", encoding="utf-8")
    assert [known(path), known(path)] == [{"a": 12}] * 2
    assert len(read) == 2


def test_a_failing_disk_is_not_remembered():
    calls = []

    def failing(path):
        calls.append(path)
        raise StorageError("x: Input/output error") from OSError(5, "Input/output error")

    known = Remembered(failing)
    for _ in range(2):
        with pytest.raises(StorageError):
            known(__file__)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": ' + b"9" * 400 + b"}", "400 digits"),
        (b'{"a": 1e999}', "not finite"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": ' + b"[" * 70 + b"1" + b"]" * 70 + b"}", "deep"),
        (b'{"a":' * 20_000, "JSON"),
        (b"[1]", "expected an object"),
    ],
)
def test_json_without_bounds_is_refused(tmp_path, text, reason):
    with pytest.raises(StorageError, match=reason):
        parse_object(text, tmp_path)
    assert parse_object(b'{"a": [[[18446744073709551615]]]}', tmp_path) == {"a": [[[2**64 - 1]]]}


@pytest.mark.parametrize("value", [True, "3", 1.5, -1, 2**63, [3], {}])
def test_a_record_takes_each_entry_with_its_type_and_range(tmp_path, value):
    with pytest.raises(StorageError, match=r"damaged, step is .* expected a whole number from 0"):
        Record(tmp_path, {"step": value}).whole("step")


def test_a_record_has_defaults_for_what_is_not_there(tmp_path):
    record = Record(tmp_path, {"step": 3, "value": -2, "at": "2026-01-02T03:04:05+00:00"})
    assert (record.whole("step"), record.whole("none", 4), record.number("value")) == (3, 4, -2.0)
    assert (record.text("none"), record.time("at"), record.time("none")) == ("", "2026-01-02T03:04:05+00:00", "")
    for wrong in ("yesterday", "2026-01-02T03:04:05", 5, "9999-99-99"):
        with pytest.raises(StorageError, match="at is"):
            Record(tmp_path, {"at": wrong}).time("at")
    for wrong in (True, "1", [1], 1e301):
        with pytest.raises(StorageError, match="value is"):
            Record(tmp_path, {"value": wrong}).number("value")
    for wrong in ("x" * 10_001, "caf\udce9", 3, None):
        with pytest.raises(StorageError, match="message is"):
            Record(tmp_path, {"message": wrong}).text("message")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("caf\udce9", "not UTF-8"),
        ("a/" * 2049, "4,098 characters"),
        ("x/" + "ü" * 128 + "/y", "255 bytes"),
    ],
)
def test_texts_that_are_no_path_are_refused_as_settings(text, problem):
    assert problem in path_problem(text)
    assert path_problem("data/été/" + "x" * 255) == ""
    for name in ("data", "manifest", "cache_dir", "vision_backbone"):
        with pytest.raises(ConfigError, match=f"{name}: .*{problem}") as caught:
            Config.from_mapping({name: text})
        assert len(str(caught.value)) < 300
