"""What a diagnosis says at its thresholds: panels whose cosines are known, and numbers that are given."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from stage3 import diagnose as diagnosing
from stage3.diagnose import VERDICTS, Diagnosis, diagnose, diagnose_run, diagnosis_lines, least_ranks
from stage3.diagnose import __main__ as command
from stage3.errors import ConfigError, DataError
from stage3.model import EncoderSpec, Stage3, baselines, embedding, validation
from stage3.model.baselines import what_training_added
from tests import synthetic


def star(pages: int, panels: int, common: float, of_page: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings, each of three orthogonal parts, and their pages.

    Panels of two pages have the cosine `common`, panels of one page `common + of_page`.
    """
    n = pages * panels
    page_ids = torch.arange(n) // panels
    parts = torch.zeros(n, 1 + pages + n, dtype=torch.float64)
    parts[:, 0] = math.sqrt(common)
    parts[torch.arange(n), 1 + page_ids] = math.sqrt(of_page)
    parts[torch.arange(n), 1 + pages + torch.arange(n)] = math.sqrt(1 - common - of_page)
    return parts, page_ids


def test_the_numbers_are_those_of_the_cosines():
    panel, page_ids = star(8, 3, 0.5, 0.2)
    panel, page_ids = torch.cat([panel, torch.zeros(2, 33)]), torch.cat([page_ids, torch.tensor([8, 9])])
    panel[25, 0] = -1.0
    numbers = diagnose(panel[:24], page_ids[:24]).numbers
    pairs, within = 24 * 23 / 2, 8 * 3
    expected = {
        "panels": 24, "dimension": 33, "not_finite": 0, "pages": 8, "pages_with_mates": 8, "zero_panels": 0,
        "collapse/mean_cosine": (within * 0.7 + (pairs - within) * 0.5) / pairs, "collapse/intra_cosine": 0.7,
        "collapse/inter_cosine": 0.5, "collapse/page_gap": 0.2, "collapse/within_share": 0.3 / 0.5,
        "retrieval/same_page_r_precision": 1.0, "retrieval/same_page_r_precision_low": 1.0,
        "retrieval/same_page_r_precision_high": 1.0, "retrieval/same_page_r_precision_chance": 2 / 23,
    }  # fmt: skip
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    found = diagnose(panel, page_ids)
    assert (found.numbers["pages"], found.numbers["pages_with_mates"], found.numbers["zero_panels"]) == (10, 8, 1)
    assert "1 of 26 panels are exactly zero" in found.reasons
    one = diagnose(panel[:3], page_ids[:3])
    assert math.isnan(one.numbers["collapse/within_share"])  # no other page
    assert one.answers["page mates show"] == "cannot tell"
    assert (one.verdict, one.answers["panels differ"]) == ("cannot tell", "yes")
    assert not any("R-precision" in reason or "page gap" in reason for reason in one.reasons)
    assert not any("R-precision" in reason for reason in diagnose(*star(8, 1, 0.5)).reasons)  # no page mates
    same = diagnose(torch.ones(8, 4), torch.arange(8) // 2)
    assert (same.verdict, math.isnan(same.numbers["collapse/within_share"])) == ("collapsed", True)
    alone = diagnose(panel[:1], page_ids[:1])
    assert (alone.verdict, alone.answers["panels differ"]) == ("cannot tell", "cannot tell")
    assert alone.reasons == ["effective rank 1.0 of at most 1", "one panel alone says nothing"]


def test_a_healthy_set_says_why_with_its_numbers():
    panel, page_ids = star(8, 3, 0.5, 0.2)
    found = diagnose(panel, page_ids, {"reconstruction/skill": 0.0, "loss/total": 3.0})
    rank = found.numbers["collapse/effective_rank"]
    assert 15 < rank < 24
    assert found.reasons == [
        "same-page R-precision 100.0 % [100.0 %, 100.0 %] (chance 8.7 %)",
        f"effective rank {rank:.1f} of at most 24",
        "page gap 0.200; panels of a page spread 60 % as wide as others",
    ]
    assert "loss/total" not in found.numbers
    worse = diagnose(panel, page_ids, {"reconstruction/skill": -0.004})
    assert worse.reasons[1] == "R² of reconstruction -0.00: worse than predicting the mean panel"
    farther = panel.clone()
    farther[1::3, 0] *= -1  # one panel of each page is away from all others but its like on other pages
    assert ", contrary to the aim of training; panels of a page" in diagnose(farther, page_ids).reasons[-1]


def test_pages_are_points_where_page_mates_are_a_hundred_times_closer():
    panel, page_ids = star(8, 3, 0.1, 0.8919)
    found = diagnose(panel, page_ids)
    rank = found.numbers["collapse/effective_rank"]
    assert (found.verdict, found.answers["panels differ"]) == ("page-collapsed", "no")
    assert found.reasons[:2] == [
        "page mates have a cosine of 0.9919, panels of two pages of 0.1000: they spread 0.9 % as wide",
        f"effective rank {rank:.1f} of at most 8",  # pages, as there are no more points
    ]
    found = diagnose(*star(8, 3, 0.1, 0.8901))  # 1.1 %
    assert (found.verdict, found.answers["panels differ"]) == ("healthy", "yes")


def test_a_narrow_cone_needs_neighbors_that_show_something():
    apart = diagnose(*star(20, 3, 0.979))
    assert (apart.verdict, apart.answers["panels differ"]) == ("no signal", "yes")
    assert not any("cone" in reason for reason in apart.reasons)
    cone = "all panels lie in a narrow cone (mean cosine 0.9810)"
    nothing = diagnose(*star(20, 3, 0.981))
    assert (nothing.verdict, nothing.answers["panels differ"]) == ("collapsed", "no")
    assert nothing.reasons[0] == f"{cone}, and nothing shows that they can be told apart"
    little = diagnose(*star(20, 3, 0.981), {"retrieval/mean_r5": 0.6, "retrieval/gallery": 60.0})
    assert (little.verdict, little.answers["panels differ"]) == ("cannot tell", "cannot tell")
    assert f"{cone}, and little shows that they can be told apart" in little.reasons
    clear = diagnose(*star(20, 3, 0.981, 0.005))
    assert (clear.verdict, clear.answers["panels differ"]) == ("healthy", "yes")
    assert clear.reasons[-1] == "all panels lie in a narrow cone (mean cosine 0.9812), yet can be told apart"


def test_a_cone_is_told_apart_from_half_of_the_neighbors_on():
    """Of 20 pages so many are recognized, and of the others the mates are as near as all panels."""
    for recognized, answer in ((9, "cannot tell"), (11, "yes")):
        panel, page_ids = star(20, 3, 0.981, 0.005)
        other, _ = star(20, 3, 0.981)
        panel[3 * recognized :] = other[3 * recognized :]
        found = diagnose(panel, page_ids)
        assert found.numbers["retrieval/same_page_r_precision"] == pytest.approx(recognized / 20, abs=0.03)
        assert (found.answers["page mates show"], found.answers["panels differ"]) == ("yes", answer)
        assert found.verdict == {"cannot tell": "cannot tell", "yes": "healthy"}[answer]
        low, mean, high = (found.numbers[f"retrieval/same_page_r_precision{end}"] for end in ("_low", "", "_high"))
        assert low < mean < high
        assert any(f" {100 * mean:.1f} % [{100 * low:.1f} %, {100 * high:.1f} %] (chance" in r for r in found.reasons)

    panel, page_ids = star(20, 2, 0.981, 0.005)
    page_ids[20:] = page_ids[20:].reshape(-1, 2, 2).transpose(1, 2).flatten()  # whoever is near is on another page
    found = diagnose(panel, page_ids)
    assert found.numbers["retrieval/same_page_r_precision"] == 0.5
    assert found.answers["panels differ"] == "yes"


def test_panels_are_the_same_up_to_a_spread_of_a_hundredth_of_a_percent():
    same = diagnose(*star(20, 3, 1 - 0.9e-4))
    assert same.reasons[0] == "two panels have a cosine of 0.99991 on average: they are the same"
    nearly = diagnose(*star(20, 3, 1 - 1.2e-4))
    assert nearly.reasons[0] == "the rank is below 6.0: panels differ in too few directions"
    for found in (same, nearly):
        assert (found.verdict, found.answers["panels differ"]) == ("collapsed", "no")
    zero = diagnose(torch.zeros(9, 4), torch.arange(9) // 3)
    assert zero.reasons[0].endswith("on average: they are the same")
    assert zero.reasons[1:3] == ["effective rank 0.0 of at most 4", "9 of 9 panels are exactly zero"]


def on_axes(axes: int, dimension: int) -> torch.Tensor:
    """120 panels, each on one of so many axes in turn: the effective rank is their number."""
    return torch.eye(dimension)[torch.arange(120) % axes]


def test_a_sixth_of_the_possible_directions_and_at_most_six_are_few():
    page_ids = torch.arange(120) // 4  # panels of a page are on different axes
    for axes, dimension, few in ((5, 60, 6.0), (3, 24, 4.0), (7, 60, None), (5, 24, None)):
        found = diagnose(on_axes(axes, dimension), page_ids)
        assert found.numbers["collapse/effective_rank"] == pytest.approx(axes, rel=1e-3)
        assert (found.verdict == "collapsed") is (few is not None)
        if few:
            assert found.reasons[0] == f"the rank is below {few:.1f}: panels differ in too few directions"
            assert found.reasons[1] == f"effective rank {axes:.1f} of at most {dimension}"
    assert [least_ranks(n) for n in (1, 2, 3, 12, 24, 36, 60)] == [
        (0.5, 0.5), (1, 1), (1.5, 1.5), (2, 2), (2, 4), (2, 6), (2, 6)
    ]  # fmt: skip


def test_few_directions_are_enough_where_page_mates_are_found_in_them():
    draw = torch.Generator().manual_seed(0)
    page_ids = torch.arange(120) // 4
    center = torch.randn(30, 3, generator=draw)[page_ids] + 0.1 * torch.randn(120, 3, generator=draw)
    found = diagnose(torch.nn.functional.pad(center, (0, 57)), page_ids)
    assert found.numbers["collapse/effective_rank"] < 3.1
    assert found.verdict == "healthy"
    line = torch.stack([torch.ones(120), 0.4 * torch.linspace(-1, 1, 120)], dim=1)  # neighbors on it are page mates
    found = diagnose(torch.nn.functional.pad(line, (0, 58)), page_ids)
    assert found.numbers["retrieval/same_page_r_precision"] > 0.5
    assert found.verdict == "collapsed"
    assert found.reasons[0] == "the rank is below 2.0: panels differ in too few directions"


@pytest.mark.parametrize(
    ("found", "gallery", "answer", "said"),
    [
        (0.5, 1.0, "cannot tell", None),
        (math.nan, 100.0, "cannot tell", None),
        (0.5, 2.0, "cannot tell", "2 (chance 100.0 %): too few panels with image and text to judge"),
        (0.9, 19.0, "cannot tell", "19 (chance 26.3 %): too few panels with image and text to judge"),
        (0.9, 20.0, "yes", "20 (chance 25.0 %)"),
        (0.116, 100.0, "yes", "100 (chance 5.0 %)"),  # three standard deviations are 6.54 points
        (0.115, 100.0, "cannot tell", "100 (chance 5.0 %): not above chance, and too few to exclude 5 % more"),
        (0.035, 100.0, "cannot tell", "100 (chance 5.0 %): not above chance, and too few to exclude 5 % more"),
        (0.034, 100.0, "no", "100 (chance 5.0 %): no better than chance"),
    ],
)
def test_image_and_text_match_beyond_three_standard_deviations_of_chance(found, gallery, answer, said):
    judged = diagnose(*star(8, 3, 0.5, 0.2), {"retrieval/mean_r5": found, "retrieval/gallery": gallery})
    assert judged.answers["image and text match"] == answer
    words = [reason for reason in judged.reasons if reason.startswith("image-text")]
    assert words == ([] if said is None else [f"image-text R@5 {100 * found:.1f} % in a gallery of {said}"])
    verdicts = {"yes": "healthy", "no": "partial signal", "cannot tell": "cannot tell"}
    assert judged.verdict == ("healthy" if said is None else verdicts[answer])


def test_six_pages_with_mates_are_enough():
    few = diagnose(*star(5, 3, 0.5, 0.2))
    assert few.reasons[0] == (
        "same-page R-precision 100.0 % (chance 14.3 %): 5 pages with two or more panels are too few to judge whether "
        "pages show"
    )
    assert few.answers["page mates show"] == "cannot tell"
    assert diagnose(*star(6, 3, 0.5, 0.2)).answers["page mates show"] == "yes"
    panel, page_ids = star(6, 3, 0.5)
    none = diagnose(panel, page_ids)
    assert none.answers["page mates show"] == "no"
    assert none.reasons[0].endswith("(chance 11.8 %): no better than chance")


def test_the_lines_say_verdict_answers_reasons_notes_and_what_helps():
    answers = {"panels differ": "no", "page mates show": "yes"}
    found = Diagnosis("collapsed", ["one", "two"], {"panels": 1.0, "pages": 1.0}, answers)
    lines = list(diagnosis_lines(found, {"of": "runs/a", "split": "test", "notes": ["three"]}))
    assert lines[:-1] == [
        "runs/a, test pages: 1 panel of 1 page",
        f"COLLAPSED: {VERDICTS['collapsed']}",
        "  panels differ?              no",
        "  page mates show?            yes",
        "  - one",
        "  - two",
        "note: three",
    ]
    assert lines[-1].startswith("What helps: detach_target true;")
    for verdict, helps in (("page-collapsed", "detach_target"), ("below its features", "fewer epochs")):
        last = list(diagnosis_lines(Diagnosis(verdict, [], {"panels": 1.0}), {"of": "", "split": "", "notes": []}))[-1]
        assert last.startswith("What helps: ")
        assert helps in last
    for verdict in VERDICTS.keys() - {"collapsed", "page-collapsed", "below its features"}:
        lines = list(diagnosis_lines(Diagnosis(verdict, [], {"panels": 2e3}), {"of": "x", "split": "all", "notes": []}))
        assert lines == ["x, all pages: 2,000 panels", f"{verdict.upper()}: {VERDICTS[verdict]}"]


def test_a_lamp_is_lit_by_its_own_answer():
    answers = {"panels differ": "yes", "page mates show": "no", "not below frozen features": "no"}
    assert list(Diagnosis("", [], {}, answers).lamps.items()) == [
        ("panels differ", "good"),
        ("page mates show", "bad"),
        ("image and text match", "cannot tell"),
    ]
    panel, page_ids = star(8, 3, 0.5, 0.2)
    panel[[2, 5], 0] = torch.tensor([math.nan, math.inf], dtype=panel.dtype)
    wrong = diagnose(panel, page_ids)
    assert (wrong.verdict, wrong.reasons) == ("not finite", ["2 of 24 panels hold NaN or infinity"])
    assert wrong.numbers == {"panels": 24, "dimension": 33, "not_finite": 2}
    assert list(wrong.lamps.values()) == ["bad", "cannot tell", "cannot tell"]
    with pytest.raises(DataError, match=r"embeddings \(2, 3, 4\) and page ids \(2,\): expected one row and one id"):
        diagnose(torch.ones(2, 3, 4), torch.arange(2))
    with pytest.raises(DataError, match="one row and one id"):
        diagnose(torch.ones(3, 4), torch.arange(2))
    with pytest.raises(DataError, match="at least one panel"):
        diagnose(torch.zeros(0, 4), torch.arange(0))


def test_a_model_is_compared_with_its_features():
    (ours, page_ids), (theirs, _) = star(8, 3, 0.5, 0.2), star(8, 3, 0.5)
    better, worse = (
        (panel, what_training_added(panel, frozen, page_ids, page_ids // 2))
        for panel, frozen in ((ours, theirs), (theirs, ours))
    )
    found = diagnose(better[0], page_ids, None, better[1])
    assert (found.answers["not below frozen features"], found.verdict, found.exit_code) == ("yes", "healthy", 0)
    assert found.numbers["frozen/same_page_r_precision"] == pytest.approx(2 / 23)
    assert found.numbers["frozen/difference"] == pytest.approx(21 / 23)
    assert better[1].sentence in found.reasons
    found = diagnose(worse[0], page_ids, None, worse[1])
    assert (found.answers["not below frozen features"], found.exit_code) == ("no", 3)
    assert found.verdict == "below its features"
    few = what_training_added(theirs[:15], ours[:15], page_ids[:15], page_ids[:15])
    assert diagnose(theirs[:15], page_ids[:15], None, few).answers["not below frozen features"] == "cannot tell"


def test_a_run_is_judged_on_the_pages_asked_for_with_its_own_model_and_features(tmp_path, monkeypatch):
    run = synthetic.run(tmp_path / "run", form="plain")
    data = synthetic.dataset(run.config, books=16)
    spec = EncoderSpec.of(run.config, data.features.image_sizes, data.features.text_dim)
    model = Stage3.untrained(spec, run.config, baselines.statistics(data, data.pages("train"))).eval()
    for step, scale in ((1, 1.0), (2, 0.0)):  # of the second the best is not made
        weights = {n: scale * t if t.is_floating_point() else t for n, t in model.state_dict().items()}
        run.save_checkpoint(step, {"model": weights}, {"encoder": spec.to_dict()})
    run.set_best(1, 0.5, "loss/total")
    embedded = embedding.embed(model, data.panel_set, data.pages("test"))
    row = validation.retrieval_metrics(embedded) | validation.reconstruction_metrics(model, embedded)
    expected = diagnose(embedded.panel, embedded.page_ids, row, baselines.added_to(data, embedded))
    found, about = diagnose_run(run, data=data)
    assert found == expected
    assert {"retrieval/mean_r5", "reconstruction/skill", "frozen/difference"} <= found.numbers.keys()
    assert about == {"of": str(run.path), "split": "test", "notes": []}
    monkeypatch.setattr(diagnosing, "load_data", lambda of: {run.path: data}[of.path])
    val, about = diagnose_run(run, split="val")
    assert (about["split"], len(about["notes"])) == ("val", 1)
    assert val.numbers["panels"] == np.isin(data.table.page_of_panel, data.pages("val")).sum()
    assert diagnose_run(run, checkpoint=2)[0].numbers != found.numbers
    other = replace(data, features=replace(data.features, fingerprint="f" * 64))
    run.write_json("data", data.identity())
    with pytest.raises(DataError, match="ffffffffffffffff"):
        diagnose_run(run, data=other)


def test_what_the_command_was_asked_reaches_the_diagnosis(tmp_path, monkeypatch, capsys):
    run = synthetic.run(tmp_path / "run")
    asked: list[object] = []
    about = {"of": "x", "split": "val", "notes": []}

    def judge(name, **what):
        asked.append((getattr(name, "path", name), what))
        return Diagnosis("collapsed" if what else "healthy", [], {"panels": 2.0}), about

    monkeypatch.setattr(command, "load_data", lambda folder, given: (folder.path, given))
    monkeypatch.setattr(command, "diagnose_run", judge)
    monkeypatch.setattr(command, "diagnose_store", judge)
    argv = ["--run", str(run.path)]
    assert command.main([*argv, "--split", "val", "--checkpoint", "7", "--data", "elsewhere"]) == 3
    assert capsys.readouterr().out.startswith("x, val pages: 2 panels\nCOLLAPSED: ")
    assert command.main(argv) == 3
    assert command.main(["--embeddings", "x.zarr"]) == 0
    assert asked == [
        (run.path, {"split": "val", "checkpoint": 7, "data": (run.path, {"data": "elsewhere"})}),
        (run.path, {"split": None, "checkpoint": None, "data": (run.path, {})}),
        ("x.zarr", {}),
    ]
    for neither_or_both in ([], [*argv, "--embeddings", "x.zarr"]):
        with pytest.raises(ConfigError, match="either --run"):
            command.main(neither_or_both)
    with pytest.raises(SystemExit):
        command.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for words in ("--run RUN | --embeddings X.zarr [--json] ...", "default test, or val", "X.zarr Zarr store that"):
        assert words in said
    assert diagnosing.EXIT_CODES["below its features"] == 3
