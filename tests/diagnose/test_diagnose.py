"""Collapsed, page-collapsed and healthy embeddings are told apart, and what is not known is said.

No threshold on one number gives these verdicts.
"""

import json
import subprocess
import sys

import forked
import pytest
import torch
import zarr

from stage3 import metrics
from stage3.config import Config
from stage3.diagnose import EXIT_CODES, VERDICTS, diagnose
from stage3.diagnose import __main__ as diagnose_command
from stage3.errors import ConfigError, DataError
from stage3.model import EncoderSpec, Stage3, baselines, embedding, validation
from stage3.train.trainer import Trainer
from tests import synthetic

pytestmark = pytest.mark.slow


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sets(pages: int = 60, panels: int = 5, dim: int = 64) -> dict[str, tuple[torch.Tensor, str]]:
    """Embeddings of `pages` pages with `panels` panels each, and the verdict they deserve."""
    center, own, shared = normal(pages, dim).repeat_interleave(panels, 0), normal(pages * panels, dim, seed=1), 0
    shared = normal(1, dim, seed=2)
    return {
        "all identical": (shared.repeat(pages * panels, 1), "collapsed"),
        "identical up to noise": (shared + 1e-3 * own, "collapsed"),
        "identical up to norm": (shared * torch.rand(pages * panels, 1).add(0.5), "collapsed"),
        "a few percent of noise": (shared + 0.03 * own, "collapsed"),
        "all zero": (torch.zeros(pages * panels, dim), "collapsed"),
        "two opposite points": (shared * torch.arange(pages * panels).remainder(2).mul(2).sub(1)[:, None], "collapsed"),
        "pages are points": (center, "page-collapsed"),
        "pages are points up to noise": (center + 0.02 * own, "page-collapsed"),
        "pages are points in a narrow cone": (30 * shared + center + 0.02 * own, "page-collapsed"),
        "healthy": (center + own, "healthy"),
        "healthy, high cosine within pages": (center + 0.25 * own, "healthy"),
        "healthy, high cosine everywhere": (4 * shared + center + own, "healthy"),
        "healthy, narrow cone": (20 * shared + center + own, "healthy"),
        "healthy, low gap": (0.4 * center + own, "healthy"),
        "random, never trained": (own, "no signal"),
        "random in a cone, never trained": (4 * shared + own, "no signal"),
    }


def pages_of(panel: torch.Tensor, panels: int = 5) -> torch.Tensor:
    return torch.arange(len(panel)) // panels


@pytest.mark.parametrize("name", sets())
def test_the_verdict_of_synthetic_embeddings(name):
    panel, expected = sets()[name]
    found = diagnose(panel, pages_of(panel))
    assert found.verdict == expected, found
    assert found.exit_code == (3 if "collapsed" in expected else 0)
    assert found.reasons
    json.dumps(found.numbers)


@pytest.mark.parametrize("name", sets())
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_neither_norm_nor_order_changes_the_verdict(name, scale):
    panel, expected = sets()[name]
    order = torch.randperm(len(panel), generator=torch.Generator().manual_seed(3))
    assert diagnose(scale * panel[order], pages_of(panel)[order]).verdict == expected


def intra_cosine(panel: torch.Tensor) -> float:
    return metrics.page_gap(panel, pages_of(panel)).intra


def wrong(panel: torch.Tensor) -> bool:
    return diagnose(panel, pages_of(panel)).exit_code == 3


def test_no_threshold_on_one_number_gives_these_verdicts():
    """Else the whole decision could be that threshold; the same test run on it fails."""
    every = [(panel, wrong(panel)) for panel, _ in sets().values() if panel.abs().sum() > 0]
    numbers = {
        "cosine within pages": intra_cosine,
        "page gap": lambda z: metrics.page_gap(z, pages_of(z)).gap,
        "mean cosine": metrics.mean_cosine,
        "effective rank": metrics.effective_rank,
    }
    for name, number in numbers.items():
        bad, good = [[number(z) for z, w in every if w == kind] for kind in (True, False)]
        assert max(min(bad), min(good)) < min(max(bad), max(good)), f"{name} alone separates the sets"


def test_the_healthy_set_is_closer_within_pages_than_a_collapsed_one():
    """The counterexample to a threshold on the cosine within pages, spelled out."""
    assert intra_cosine(sets()["healthy, narrow cone"][0]) > 0.99 > intra_cosine(sets()["two opposite points"][0])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda c, o: c.new_ones(6, 16), "collapsed"),
        (lambda c, o: c, "page-collapsed"),
        (lambda c, o: c + 0.5 * o, "cannot tell"),  # two pages that lie apart by chance look like this, too
        (lambda c, o: o, "cannot tell"),
    ],
)
def test_two_pages_are_judged_without_blaming_their_low_rank(make, expected):
    panel = make(normal(2, 16).repeat_interleave(3, 0), normal(6, 16, seed=1))
    found = diagnose(panel, pages_of(panel, 3))
    assert found.verdict == expected
    assert expected != "cannot tell" or any("too few" in reason for reason in found.reasons)


@pytest.mark.parametrize("panels", [1, 2])
def test_one_or_two_panels_do_not_crash(panels):
    assert diagnose(normal(panels, 8), torch.arange(panels)).exit_code == 0


def test_single_panel_pages_can_collapse_too():
    found = diagnose(normal(100, 32), torch.arange(100))
    assert (found.verdict, found.answers["panels differ"], found.exit_code) == ("cannot tell", "yes", 0)
    at_r5 = {"retrieval/mean_r5": 0.6, "retrieval/gallery": 100.0}
    assert diagnose(normal(100, 32), torch.arange(100), at_r5).verdict == "healthy"
    assert diagnose(normal(1, 32).repeat(100, 1), torch.arange(100)).verdict == "collapsed"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_a_verdict_of_its_own(value):
    panel = normal(20, 8)
    panel[3, 2] = value
    found = diagnose(panel, pages_of(panel))
    assert (found.verdict, found.exit_code) == ("not finite", 3)
    assert "1 of 20" in found.reasons[0]


def test_alignment_that_works_is_signal_even_where_pages_mean_nothing():
    panel = sets()["random, never trained"][0]
    at_chance = {"retrieval/mean_r5": 0.02, "retrieval/gallery": 250.0}
    assert diagnose(panel, pages_of(panel), at_chance).verdict == "no signal"
    found = diagnose(panel, pages_of(panel), at_chance | {"retrieval/mean_r5": 0.3})
    assert (found.verdict, found.exit_code) == ("partial signal", 0)
    assert (found.answers["page mates show"], found.answers["image and text match"]) == ("no", "yes")
    collapsed = sets()["all identical"][0]
    assert diagnose(collapsed, pages_of(collapsed), at_chance | {"retrieval/mean_r5": 0.3}).verdict == "collapsed"


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="one row and one id"):
        diagnose(normal(3, 4), torch.arange(2))
    with pytest.raises(DataError, match="at least one panel"):
        diagnose(torch.zeros(0, 4), torch.arange(0))


def test_every_verdict_is_explained_and_has_a_code():
    assert VERDICTS.keys() == EXIT_CODES.keys()


def reconstructing_alone(path, **settings):
    """A run with nothing but reconstruction, and its data."""
    weights = {"contrastive_weight": 0, "alignment_weight": 0, "reconstruction_weight": 1}
    rest = {
        "epochs": 50,
        "validate_every": 50,
        "checkpoint_every": 50,
        "log_every": 50,
        "select_by": "reconstruction/skill",
        "select_margin": 1.0,  # the last checkpoint, however bad
        "not_below_start": False,
        "form": "plain",
        "lr": 0.01,
        "dropout": 0,
    }
    run = synthetic.run(path, **{**weights, **rest, **settings})
    data = synthetic.dataset(run.config, books=12)
    with run.lock():
        Trainer(run, data).fit(lambda: False)
    return run, data


@pytest.mark.parametrize(("detach", "verdict"), [(False, "collapsed"), (True, "below its features")])
def test_an_undetached_target_is_seen_to_collapse_the_encoder(detach, verdict, tmp_path, monkeypatch, capsys):
    run, data = reconstructing_alone(tmp_path / "run", detach_target=detach)
    monkeypatch.setattr(diagnose_command, "load_data", lambda run, given: data)
    assert diagnose_command.main(["--run", str(run.path), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == verdict
    assert found["answers"]["panels differ"] == ("yes" if detach else "no")
    assert found["answers"]["not below frozen features"] == "no"


def write_foreign_store(path, panel: torch.Tensor, panels: int = 5) -> None:
    """A store as another program may write it: no record of an export beside it."""
    pages = len(panel) // panels
    group = zarr.open_group(path, mode="w", zarr_format=2)
    stored = group.create_array("panel_embeddings", shape=(pages, 16, 64), chunks=(100, 16, 64), dtype="float32")
    masks = group.create_array("panel_masks", shape=(pages, 16), chunks=(100, 16), dtype="bool")
    packed = torch.zeros(pages, 16, 64)
    packed[:, :panels] = panel.reshape(pages, panels, 64)
    stored[:] = packed.numpy()
    masks[:, :panels] = True


@pytest.mark.parametrize("name", ["all identical", "pages are points", "healthy", "random, never trained"])
def test_a_store_of_embeddings_is_judged_from_its_file(tmp_path, name, capsys):
    panel, expected = sets()[name]
    write_foreign_store(tmp_path / "x.zarr", panel)
    assert diagnose_command.main(["--embeddings", str(tmp_path / "x.zarr"), "--json"]) == (
        3 if "collapsed" in expected else 0
    )
    assert json.loads(capsys.readouterr().out)["verdict"] == expected


def test_a_store_that_lacks_a_chunk_is_bad_input_and_not_a_collapse(tmp_path):
    write_foreign_store(tmp_path / "x.zarr", sets()["healthy"][0])
    (tmp_path / "x.zarr" / "panel_embeddings" / "0.0.0").unlink()
    with pytest.raises(DataError, match=r"0\.0\.0"):
        diagnose_command.main(["--embeddings", str(tmp_path / "x.zarr")])


def test_the_command_ends_with_the_verdicts_exit_code_and_one_line_for_an_error(tmp_path):
    write_foreign_store(tmp_path / "x.zarr", sets()["all identical"][0])
    command = [sys.executable, "-m", "stage3.diagnose", "--embeddings"]
    ended = subprocess.run([*command, tmp_path / "x.zarr"], capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert "COLLAPSED" in ended.stdout
    ended = forked.start("stage3.diagnose", ["--embeddings", str(tmp_path / "y.zarr")])
    out, errors = ended.communicate(timeout=60)
    assert (ended.returncode, out) == (2, "")
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


def test_one_of_run_and_embeddings_is_needed():
    for argv in ([], ["--run", "a", "--embeddings", "b"]):
        with pytest.raises(ConfigError, match="either --run"):
            diagnose_command.main(argv)


def test_page_mates_are_not_called_closer_where_they_are_not():
    """Few pages, yet they show that page mates are farther than others, and that they are much closer."""
    pages = torch.arange(6).repeat_interleave(4)
    own = normal(24, 32)
    apart = own - 0.3 * torch.stack([own[pages == p].sum(0) - own[i] for i, p in enumerate(pages)])  # repelled
    found = diagnose(apart, pages)
    assert found.numbers["collapse/page_gap"] < 0
    assert (found.verdict, found.exit_code) == ("no signal", 0)
    closer = own + 2 * normal(6, 32)[pages]
    assert diagnose(closer, pages).verdict == "healthy"


# --- what was called healthy and is not


def test_random_embeddings_of_seven_pages_are_hardly_ever_called_healthy():
    """Half of them have a page gap above 0, which once was enough."""
    found = [diagnose(normal(28, 32, seed=s), torch.arange(28) // 4) for s in range(60)]
    assert sum(f.numbers["collapse/page_gap"] > 0 for f in found) > 20
    verdicts = [f.verdict for f in found]
    assert verdicts.count("healthy") <= 4
    assert verdicts.count("cannot tell") >= 30
    assert set(verdicts) <= {"healthy", "cannot tell", "no signal"}


def test_a_run_at_chance_with_a_page_gap_near_zero_is_not_healthy():
    pages = torch.arange(28) // 4
    panel = next(z for s in range(99) if 0.005 < metrics.page_gap(z := normal(28, 32, seed=s), pages).gap < 0.01)
    row = {"retrieval/mean_r5": 0.2, "retrieval/gallery": 25.0, "reconstruction/skill": -3.67}
    found = diagnose(panel, pages, row)
    assert any("R² of reconstruction -3.67" in reason for reason in found.reasons)
    assert found.verdict in ("cannot tell", "no signal")
    assert found.answers["image and text match"] == "cannot tell"
    assert found.answers["page mates show"] != "yes"


@pytest.mark.parametrize(
    ("pages", "theme", "expected"), [(60, 0.4, "cannot tell"), (60, 0, "collapsed"), (7, 0, "collapsed")]
)
def test_cosines_of_985_between_everything_are_not_healthy(pages, theme, expected):
    """Panels that differ by ten degrees may hold all there is, or nothing: neighbors must show it clearly."""
    panel = 8.2 * torch.nn.functional.normalize(normal(1, 64, seed=2)) * 8
    panel = panel + theme * normal(pages, 64).repeat_interleave(5, 0) + normal(5 * pages, 64, seed=1)
    found = diagnose(panel, pages_of(panel))
    assert 0.98 < found.numbers["collapse/mean_cosine"] < 0.99
    assert found.verdict == expected
    assert found.answers["panels differ"] != "yes"


def test_an_untrained_model_is_not_healthy_although_its_features_show_pages():
    config = Config.from_mapping(synthetic.SMALL | {"dim": 32, "form": "plain"})
    data = synthetic.dataset(config, books=64)
    spec = EncoderSpec.of(config, data.features.image_sizes, data.features.text_dim)
    embedded = embedding.embed(Stage3.untrained(spec, config, []), data.panel_set, data.pages("all"))
    added = baselines.added_to(data, embedded)
    for known in (added, None):
        found = diagnose(embedded.panel, embedded.page_ids, validation.retrieval_metrics(embedded), known)
        assert found.answers["page mates show"] == "yes"
        assert found.answers["image and text match"] == "no"
        assert found.verdict == ("below its features" if known else "partial signal")


# --- against the frozen features


def compared(trained: float, frozen: float, pages: int = 60):
    page_ids = torch.arange(pages).repeat_interleave(5)
    center = normal(pages, 64)[page_ids]
    ours, theirs = (s * center + normal(len(page_ids), 64, seed=i) for i, s in ((1, trained), (2, frozen)))
    return diagnose(ours, page_ids, None, baselines.what_training_added(ours, theirs, page_ids, page_ids // 6))


@pytest.mark.parametrize(
    ("trained", "frozen", "answer", "verdict", "code"),
    [
        (1.0, 0.4, "yes", "healthy", 0),
        (0.6, 0.6, "yes", "healthy", 0),  # no worse than its features
        (0.4, 1.0, "no", "below its features", 3),
        (0.0, 1.0, "no", "below its features", 3),
    ],
)
def test_a_model_below_its_frozen_features_is_not_healthy(trained, frozen, answer, verdict, code):
    found = compared(trained, frozen)
    assert (found.answers["not below frozen features"], found.verdict, found.exit_code) == (answer, verdict, code)
    assert any("frozen features" in reason for reason in found.reasons)


def test_too_few_pages_do_not_blame_training():
    found = compared(0.4, 1.0, pages=5)
    assert found.answers["not below frozen features"] == "cannot tell"
    assert (found.verdict, found.exit_code) == ("cannot tell", 0)


def test_a_store_alone_cannot_tell_whether_its_features_were_better(tmp_path, capsys):
    write_foreign_store(tmp_path / "x.zarr", sets()["healthy"][0])
    diagnose_command.main(["--embeddings", str(tmp_path / "x.zarr")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'x.zarr'}, all pages: 300 panels of 60 pages"
    assert lines[-1].startswith("note: no record of an export lies beside this store")
    assert "  page mates show?            yes" in lines
    assert "  not below frozen features?  cannot tell" in lines
    assert "  image and text match?       cannot tell" in lines


def test_every_answer_is_one_of_three_and_collapse_is_a_no():
    for panel, expected in sets().values():
        found = diagnose(panel, pages_of(panel))
        assert set(found.answers.values()) <= {"yes", "no", "cannot tell"}
        assert (found.answers["panels differ"] == "no") is ("collapsed" in expected)


@pytest.mark.parametrize(
    ("found", "gallery", "answer"),
    [(0.6, 100, "yes"), (0.008, 1000, "no"), (0.005, 1000, "no"), (0.2, 40, "cannot tell"), (0.9, 19, "cannot tell")],
)
def test_image_and_text_match_is_answered_by_what_the_gallery_can_resolve(found, gallery, answer):
    panel = sets()["healthy"][0]
    given = {"retrieval/mean_r5": found, "retrieval/gallery": float(gallery)}
    judged = diagnose(panel, pages_of(panel), given)
    assert judged.answers["image and text match"] == answer
    assert judged.verdict == {"yes": "healthy", "no": "partial signal", "cannot tell": "cannot tell"}[answer]
