"""Settings: declared once, checked always, refused by name."""

import dataclasses
import math
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stage3 import cli
from stage3.cli import Parser, clean, settings_from
from stage3.config import FIELDS, GROUPS, Config, describe, differences, read_yaml, spec_of
from stage3.errors import ConfigError
from stage3.storage import to_json

CONTRACT = [
    "contrastive_weight",
    "reconstruction_weight",
    "alignment_weight",
    "contrastive_temperature",
    "alignment_temperature",
    "temperature",
    "learn_temperature",
    "detach_target",
    "detach_context",
    "symmetric_alignment",
    "epochs",
    "batch_pages",
    "max_panels",
    "lr",
    "weight_decay",
    "grad_clip",
    "seed",
    "dim",
    "vision_backbone",
    "text_backbone",
    "visual_fusion",
    "sampler",
    "select_by",
    "device",
    "precision",
]


BAD_TEMPERATURES = (0, -1, math.nan, math.inf, 1e-6, 2, "abc")
BAD_WEIGHTS = (-1, math.nan, math.inf, "x")


def parsed(*argv: str, config: str | None = None) -> Config:
    parser = Parser("train", "about", ("example",))
    parser.add_settings()
    return settings_from(parser.parse(argv), config=config)


def test_the_names_that_scripts_rely_on_are_settings():
    assert set(CONTRACT) <= set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_says_what_it_is_and_has_a_valid_default(name):
    spec = spec_of(name)
    assert spec.group in GROUPS
    assert len(spec.help) > 10
    assert describe(spec)


@pytest.mark.parametrize(
    ("name", "value"),
    [(n, v) for n in ("contrastive_temperature", "alignment_temperature", "temperature") for v in BAD_TEMPERATURES]
    + [(n, v) for n in ("contrastive_weight", "reconstruction_weight", "alignment_weight") for v in BAD_WEIGHTS]
    + [("lr", 0), ("lr", math.nan), ("lr", 1e9), ("batch_pages", 0), ("batch_pages", 1), ("max_panels", 0)]
    + [("workers", -1), ("epochs", -1), ("epochs", 1.5), ("epochs", True), ("grad_clip", 0), ("seed", -1)]
    + [("device", "cudda"), ("device", "cuda:"), ("device", ""), ("remap", "foo"), ("remap", ["=x"])]
    + [("detach_target", "perhaps"), ("sampler", "balanced"), ("visual_fusion", None), ("data", 3), ("remap", 5)],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"^{name}: "):
        Config.from_mapping({name: value})


def test_all_weights_zero_is_refused():
    with pytest.raises(ConfigError, match="nothing would be learned"):
        Config(contrastive_weight=0, reconstruction_weight=0, alignment_weight=0)


@pytest.mark.parametrize(
    ("typo", "meant"), [("temprature", "temperature"), ("batch-page", "batch_pages"), ("lrr", "lr")]
)
def test_unknown_names_are_refused_with_the_nearest_one(typo, meant, tmp_path):
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        Config.from_mapping({typo: 1})
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        parsed(f"--{typo}", "1")
    file = tmp_path / "c.yaml"
    file.write_text(f"{typo}: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"c.yaml: unknown setting '{typo}'"):
        parsed(config=str(file))


def test_flag_wins_over_file_wins_over_default(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("lr: 0.5\nepochs: 7\n", encoding="utf-8")
    config = parsed("--lr", "0.25", config=str(file))
    assert (config.lr, config.epochs, config.batch_pages) == (0.25, 7, Config().batch_pages)


def test_temperature_sets_both_and_a_later_layer_wins(tmp_path):
    assert (
        parsed("--temperature", "0.2").contrastive_temperature,
        parsed("--temperature", "0.2").alignment_temperature,
    ) == (
        0.2,
        0.2,
    )
    file = tmp_path / "c.yaml"
    file.write_text("temperature: 0.2\n", encoding="utf-8")
    config = parsed("--alignment_temperature", "0.5", config=str(file))
    assert (config.contrastive_temperature, config.alignment_temperature) == (0.2, 0.5)
    file.write_text("contrastive_temperature: 0.2\n", encoding="utf-8")
    assert parsed("--temperature", "0.3", config=str(file)).contrastive_temperature == 0.3
    with pytest.raises(ConfigError, match="sets both"):
        parsed("--temperature", "0.3", "--alignment_temperature", "0.5")


def test_dashes_and_bare_switches_work_on_the_command_line():
    config = parsed("--learn-temperature", "--batch-pages=3", "--keep_labels", "story, art")
    assert (config.learn_temperature, config.batch_pages, config.keep_labels) == (True, 3, ("story", "art"))
    assert parsed("--detach_target", "false").detach_target is False


def test_a_record_reproduces_itself():
    config = Config(temperature=0.3, keep_labels=("a", "b"), remap=("E:\\x=/y",), learn_temperature=True)
    assert Config.from_mapping(yaml.safe_load(config.to_yaml())) == config
    assert differences(config, config.replace(lr=0.5)) == {"lr": (config.lr, 0.5)}


def test_yaml_that_builds_objects_is_refused(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("lr: !!python/object/apply:os.system ['true']\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        read_yaml(file)
    file.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="found a list"):
        read_yaml(file)
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="is a folder; expected a YAML file"):
        read_yaml(tmp_path)


@given(
    st.sampled_from(list(FIELDS)), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
)
def test_any_value_is_either_accepted_in_range_or_refused(name, value):
    try:
        config = Config.from_mapping({name: value})
    except ConfigError:
        return
    result, spec = getattr(config, name), spec_of(name)
    if isinstance(result, float | int) and not isinstance(result, bool):
        assert spec.low is None or result >= spec.low
        assert spec.high is None or result <= spec.high


def test_help_names_every_setting_with_its_range():
    parser = Parser("train", "about", ("python -m stage3.train --run runs/a",))
    parser.add_settings()
    text = " ".join(parser.format_help().split())
    assert all(f"--{name}" in text for name in FIELDS)
    assert "from 0.005 to 1" in text
    assert "None" not in text  # defaults are shown as they are typed
    assert not re.search(r"default (True|False)", text)
    assert "python -m stage3.train --run runs/a" in text


def test_json_is_strict_and_text_is_safe_for_a_terminal():
    assert to_json({"a": math.nan, "b": [math.inf, 1]}) == '{"a": null, "b": [null, 1]}'
    assert clean("ok\x1b[31m\x00") == "ok\ufffd[31m\ufffd"


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().lr = 1.0  # type: ignore[misc]


def test_the_time_left_is_told_by_what_this_attempt_did(monkeypatch, capsys):
    clock = iter((0.0, 20.0))
    monkeypatch.setattr(cli.time, "monotonic", lambda: next(clock))
    with cli.progress("steps", 1000, done=900) as bar:
        bar.advance(10)
    assert capsys.readouterr().err == "steps: 910 of 1,000, about 180 s left\n"
