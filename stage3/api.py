"""Everything that the commands do, from Python: a `Run` that trains, evaluates, searches, maps and exports.

    data = stage3.Dataset.load("data/samples")
    run = stage3.Run.train("runs/first", data, epochs=30, alignment_weight=2)
    run.evaluate()["retrieval/i2t_r5"]

Each method calls what the command of that name calls, so both give the same numbers and the same files. Nothing below
this module imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stage3.config import Config
from stage3.data.check import check
from stage3.data.table import DataReport
from stage3.diagnose import Diagnosis, diagnose_run
from stage3.diagnose import diagnose_store as _diagnose_store
from stage3.errors import DataError
from stage3.runs import RunFolder, list_broken
from stage3.runs import list_runs as _list_runs
from stage3.runs.data import MAX_PAGES, as_recorded, check_features, load_data
from stage3.runs.tuned import seen_by
from stage3.train import train_run

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from stage3.batches import Dataset
    from stage3.data.exporters import Exported
    from stage3.data.importers import Summary as ImportSummary
    from stage3.embed.stage4 import Store
    from stage3.samples import Summary
    from stage3.search import Filters, Searcher
    from stage3.search.fusion import WordTarget
    from stage3.search.searcher import Space

Tell = Callable[[str], None]
Kind = Literal["panel", "image", "text"]


def _quiet(_: str) -> None:
    """What a run says of itself goes to its `train.log` in any case."""


class Run(RunFolder):
    """A run and everything that can be done with it; make one with `Run.train`, or open one with `Run.load`.

    A run is a folder (`path`), so it can be opened again, by any number of readers at once. Its data set is loaded when
    it is first needed. Errors are `stage3.Stage3Error`: ConfigError and DataError for what the caller can fix,
    StorageError for a disk or a damaged file.

    Example:
        >>> run = Run.load("data/samples/runs/sample")
        >>> run.status.state, run.config.epochs
        ('finished', 24)
    """

    @classmethod
    def train(
        cls,
        path: Path | str,
        data: Dataset | Path | str | None = None,
        *,
        config: Path | str | None = None,
        allow_inexact_resume: bool = False,
        tell: Tell = _quiet,
        **settings: Any,
    ) -> Run:
        """Train a new run, or resume a stopped one: `python -m stage3.train`.

        Args:
            path: folder of the run.
            data: a data set, or its folder; None where the run, `config` or `settings` name it.
            config: YAML file of settings; `settings` override it.
            allow_inexact_resume: resume even if `threads` or `device` changed; results differ slightly.
            tell: takes each line that the command would print, such as `print`.
            **settings: any setting of `Config`.

        Returns:
            The finished run.

        Raises:
            ConfigError, DataError: settings or data cannot be used; a new run leaves nothing behind.
            Interrupted: it was asked to stop (Ctrl-C, `request_stop`); the same call resumes it bit for bit.
            NumericError: three steps in a row were not finite.
            StorageError: the run cannot be written, or another process trains it.

        Example:
            >>> Run.train("runs/doctest", "data/samples", epocs=3)
            Traceback (most recent call last):
            stage3.errors.ConfigError: settings: unknown setting 'epocs'. Did you mean 'epochs'?
        """
        named, loaded = _named(data, settings)
        run = cls.load(
            train_run(
                path,
                named,
                config=config,
                data=loaded,
                allow_inexact_resume=allow_inexact_resume,
                tell=tell,
                source="settings",
            ).path
        )
        if loaded is not None:
            run.__dict__["data"] = loaded
        return run

    @cached_property
    def data(self) -> Dataset:
        """The data set that the run was trained on, loaded once.

        Raises:
            DataError: it is not where the run's settings say; give a method `data=` instead.

        Example:
            >>> len(Run.load("data/samples/runs/sample").data.table)
            2100
        """
        return load_data(self, progress=False)

    def other_data(self, source: Path | str, **settings: Any) -> Dataset:
        """Other comics, or these as they are now, with features of this run's backbones, for `data=` of any method.

        Books that the run had, by name, keep the split that it recorded; all others count as held out.

        Args:
            source: folder with a dataset.yaml.
            **settings: `panel_format`, `labels`, `remap`, `box_order`, `box_unit` or `cache_dir`.

        Raises:
            ConfigError, DataError: there is no data, or it cannot be used with this run.

        Example:
            >>> len(Run.load("data/samples/runs/sample").other_data("data/samples").pages("test"))
            108
        """
        return load_data(self, {"data": str(source), **settings}, progress=False)

    def _over(self, data: Dataset | None) -> Dataset:
        """The run's own data, or what was given in its place, under the split by book that the run recorded."""
        if data is None:
            return self.data
        if id(data) not in self._given:
            self._given.clear()
            self._given[id(data)] = (data, as_recorded(self, data))  # with what was given: its id stays taken
        return self._given[id(data)][1]

    @cached_property
    def _given(self) -> dict[int, tuple[Dataset, Dataset]]:
        return {}

    # --- judging

    def evaluate(
        self,
        *,
        split: str | None = None,
        checkpoint: int | None = None,
        data: Dataset | None = None,
        intervals: str = "page",
        max_pages: int = MAX_PAGES,
        device: str = "cpu",
    ) -> dict[str, Any]:
        """Retrieval both ways, collapse and reconstruction on held-out pages: `python -m stage3.evaluate`.

        Args:
            split: "test", "val", "train" or "all"; None takes test, or what there is, and says so in `notes`.
            checkpoint: step; None is the best.
            data: other data; None is the run's own.
            intervals: what the bootstrap resamples, "page" or "book".
            max_pages: of a larger split, so many evenly spaced pages are used; 0 takes all.
            device: "cpu", "cuda" or "auto".

        Returns:
            Metrics by their names in metrics.jsonl (shares from 0 to 1), `intervals` (low, high) and `chance` by the
            same names, `baselines` (frozen features, untrained model) and `difference` to them, `added` (what training
            added to the frozen features, with a sentence), and what was measured: `step split pages panels books
            gallery notes` and so on.

        Raises:
            DataError: no pages, or features of other backbones.
            StorageError: the checkpoint does not load.

        Example:
            >>> report = Run.load("data/samples/runs/sample").evaluate()
            >>> low, high = report["intervals"]["retrieval/i2t_r5"]
            >>> low < report["retrieval/i2t_r5"] < high
            True
        """
        from stage3.evaluate import evaluation_report

        return evaluation_report(
            self,
            split=split,
            data=self._over(data),
            checkpoint=checkpoint,
            intervals=intervals,
            max_pages=max_pages,
            device=device,
        )

    def diagnose(
        self, *, split: str | None = None, checkpoint: int | None = None, data: Dataset | None = None
    ) -> Diagnosis:
        """Are the embeddings healthy, collapsed or worse than their features? `python -m stage3.diagnose`.

        Args:
            split: as in `evaluate`.
            checkpoint: step; None is the best.
            data: other data; None is the run's own.

        Returns:
            `verdict`, `reasons` in sentences, the `numbers` behind them, and `answers` (yes, no, cannot tell) by
            question.

        Raises:
            DataError: no pages, or features of other backbones.
            StorageError: the checkpoint does not load.

        Example:
            >>> Run.load("data/samples/runs/sample").diagnose().verdict
            'healthy'
        """
        return diagnose_run(self, split=split, checkpoint=checkpoint, data=self._over(data))[0]

    # --- looking

    def searcher(self, *, checkpoint: int | None = None, data: Dataset | None = None) -> Searcher:
        """A searcher over the panels, which is kept: the second search takes milliseconds.

        Args:
            checkpoint: step; None is the best.
            data: other data; None is the run's own.

        Raises:
            DataError: features of other backbones.
            StorageError: the checkpoint does not load.

        Example:
            >>> Run.load("data/samples/runs/sample").searcher().choices("split")
            ['train', 'val', 'test']
        """
        from stage3.search import Searcher

        where = self._over(data)
        key = (self.fingerprint(self.checkpoint(checkpoint).step), id(where))
        if key not in self._searchers:
            self._searchers.clear()  # one at a time: it is as large as the embeddings
            self._searchers[key] = Searcher.of_run(self, where, checkpoint=checkpoint)
        return self._searchers[key]

    @cached_property
    def _searchers(self) -> dict[tuple[str, int], Searcher]:
        return {}

    def search(
        self,
        text: str | None = None,
        *,
        image: Path | str | Image.Image | None = None,
        panel: int | str | None = None,
        blend: float = 0.5,
        target: Space | WordTarget | None = None,
        top: int = 10,
        filters: Filters | None = None,
        index: str = "exact",
        checkpoint: int | None = None,
        data: Dataset | None = None,
    ) -> pd.DataFrame:
        """The panels nearest to words, to an image, to both, or to a panel: `python -m stage3.search`.

        Args:
            text: words; those in double quotes must be said exactly so.
            image: an image or its file; beside `text` the two are blended.
            panel: id of a panel (page#index) or row of the panel table; it is asked in both directions.
            blend: weight of the words beside an image, 0 to 1.
            target: what is searched, "image", "text" or "panel"; for words alone also "words" (panels that say them)
                or "all" (words, texts and images fused). None takes "all" for words, else the other modality.
            top: how many panels, 1 to 1000.
            filters: which panels may be found.
            index: "exact", or "faiss" for an approximate index, whose recall is in `attrs["notes"]`.
            checkpoint: step; None is the best.
            data: other data; None is the run's own.

        Returns:
            One row per panel found, best first: target, rank, score (cosine, -1 to 1; of "words" and "all" the score
            of reciprocal rank fusion), relation ("true match", "same text", "page mate" or ""), panel (row of the
            panel table), panel_id, page_id, book, page_type, split, order, text, has_image, has_text. Of "words" and
            "all" also found_by ("words", "word forms", "word parts", "some words", "text", "image", comma-separated),
            words_rank, text_rank and image_rank. Panels that say all the words come first. `attrs["notes"]` lists what
            the result lacks.

        Raises:
            ConfigError: no query, or more than one; an index that is not installed.
            DataError: an unknown panel, an unreadable image, or empty words.

        Example:
            >>> found = Run.load("data/samples/runs/sample").search("a wizard under water", top=3)
            >>> found["rank"].tolist(), found["target"].unique().tolist()
            ([1, 2, 3], ['all'])
            >>> Run.load("data/samples/runs/sample").search("wizard", top=3)["found_by"].tolist()
            ['words, text, image', 'words, text, image', 'words, text, image']
        """
        import pandas as pd

        from stage3.search import answers

        searcher = self.searcher(checkpoint=checkpoint, data=data)
        found = answers(
            searcher,
            text=text,
            image=image,
            panel=panel,
            blend=blend,
            target=target,
            top=top,
            filters=filters,
            index=index,
        )
        frame = pd.concat([a.frame.assign(target=a.target) for a in found], ignore_index=True)
        frame.attrs["notes"] = [note for a in found for note in a.results.notes]
        return frame[["target", *found[0].frame.columns]]

    def project(self, *, checkpoint: int | None = None, drift: bool = False, **parameters: Any) -> pd.DataFrame:
        """The map of the panels, made unless it is there: `python -m stage3.projection`.

        Args:
            checkpoint: step; None is the best.
            drift: lay out the embeddings that `embed_every` saved, epoch after epoch, instead.
            **parameters: `neighbors`, `min_dist`, `min_cluster`, `limit`, `seed`; see `projection.files.Parameters`.

        Returns:
            One row per panel: page_index, panel_index, canonical_id, comic_name, page_name, panel_count, cluster_id
            (-1 for none), umap_dim1, umap_dim2, row (of the panel table), pca_1, pca_2, trust (share of its 15 nearest
            panels that stay near on the map), fitted.

        Raises:
            ConfigError: the packages that make a map are not installed (`pip install stage3[app]`).
            StorageError: no such checkpoint, or the map cannot be written.

        Example:
            >>> Run.load("data/samples/runs/sample").project().columns[:3].tolist()
            ['page_index', 'panel_index', 'canonical_id']
        """
        from stage3.projection import project_run
        from stage3.projection.files import Parameters, load

        path, _ = project_run(self, checkpoint=checkpoint, drift=drift, parameters=Parameters(**parameters))
        return load(path)

    def embeddings(
        self,
        split: str = "all",
        *,
        kind: Kind = "panel",
        checkpoint: int | None = None,
        data: Dataset | None = None,
    ) -> pd.DataFrame:
        """Embeddings of all usable panels of a split.

        Args:
            split: "train", "val", "test" or "all".
            kind: "panel" (fused), or "image" or "text" alone, of the panels that have one.
            checkpoint: step; None is the best.
            data: other data; None is the run's own.

        Returns:
            (V, D) float32, as the encoder gives them (divide by the norm for cosines); the index is `panel_id`.

        Raises:
            DataError: an unknown split or kind, or features of other backbones.
            StorageError: the checkpoint does not load.

        Example:
            >>> Run.load("data/samples/runs/sample").embeddings("test").shape
            (432, 512)
        """
        import pandas as pd

        from stage3.batches import IMAGE, TEXT
        from stage3.model.embedding import embed

        if kind not in ("panel", "image", "text"):
            raise DataError(f"kind: {kind!r} is not one of panel, image, text")
        where = self._over(data)
        with self.threads():
            step = self.checkpoint(checkpoint).step
            model = self.model(step)
            check_features(self, model.encoder.spec, where)
            embedded = embed(model, seen_by(self, step, where).panel_set, where.pages(split))
        values = {"panel": embedded.panel, "image": embedded.image, "text": embedded.text}[kind]
        if kind != "panel":
            there = embedded.present[:, IMAGE if kind == "image" else TEXT]
            values, rows = values[there], embedded.rows[there].numpy()
        else:
            rows = embedded.rows.numpy()
        index = pd.Index(where.table.panels["panel_id"].iloc[rows], name="panel_id")
        return pd.DataFrame(values.numpy(), index=index)

    def panels(self, *, checkpoint: int | None = None, data: Dataset | None = None) -> pd.DataFrame:
        """What the model makes of each single panel: losses, ranks, gate weights, reconstruction error.

        Args:
            checkpoint: step; None is the best.
            data: other data; None is the run's own.

        Returns:
            One row per panel, in the order of the panel table; columns as in `stage3.runs.inspection.panel_frame`.

        Raises:
            DataError: features of other backbones.
            StorageError: the checkpoint does not load.

        Example:
            >>> Run.load("data/samples/runs/sample").panels().groupby("split")["rank_i2t"].count()["test"].item()
            310
        """
        from stage3.model.embedding import embed
        from stage3.runs.inspection import kept_columns, panel_frame

        where = self._over(data)
        with self.threads():
            step = self.checkpoint(checkpoint).step
            model = self.model(step)
            check_features(self, model.encoder.spec, where)
            where = seen_by(self, step, where)
            embedded = embed(model, where.panel_set, where.pages("all"))
            return panel_frame(where, model, embedded, kept_columns(self, step, where, model, embedded))

    # --- exporting

    def export(
        self,
        out: Path | str,
        *,
        split: str = "all",
        checkpoint: int | None = None,
        data: Dataset | None = None,
        pages: str | None = None,
        device: str = "auto",
        tell: Tell = _quiet,
    ) -> dict[str, Any]:
        """Write the panel embeddings as the Zarr store that Stage 4 reads: `python -m stage3.embed`.

        The same call resumes a stopped export and ends with the same bytes.

        Args:
            out: the store, `X.zarr`; `X.metadata.json` and `X.panels.parquet` lie beside it.
            split: which pages, "all", "train", "val" or "test".
            checkpoint: step; None is the best.
            data: other data; None is the run's own.
            pages: `A:B` writes only these rows of the store; other processes may write others.
            device: "auto", "cpu" or "cuda".
            tell: takes each line that the command would print.

        Returns:
            What was written: `finished pages panels written kept step checkpoint` and so on.

        Raises:
            DataError: nothing to export, or features of other backbones.
            Interrupted: it was asked to stop.
            StorageError: the store holds other embeddings, or cannot be written.

        Example:
            >>> import tempfile
            >>> Run.load("data/samples/runs/sample").export(tempfile.mkdtemp() + "/x.zarr", split="test")["panels"]
            432
        """
        from stage3.embed import export_run

        return export_run(
            self,
            out,
            checkpoint=checkpoint,
            data=self._over(data),
            split=split,
            pages=pages,
            device=device,
            tell=tell,
        )

    # --- sharing

    def save_pretrained(
        self, folder: Path | str, *, checkpoint: int | None = None, data: Dataset | None = None, license: str = ""
    ) -> Path:
        """Write the run as a folder for others, with a model card (`README.md`) made from it.

        It holds one checkpoint without optimizer, the settings without places of this machine, and local backbones.

        Args:
            folder: new or empty.
            checkpoint: step; None is the best.
            data: what is evaluated for the card; None is the run's own, and where that is not here, what was measured
                before.
            license: identifier for the card, such as "cc-by-4.0"; "" leaves it out.

        Raises:
            ConfigError: the folder holds something.
            DataError: a file names a place of this machine.
            StorageError: the checkpoint does not load, or the folder cannot be written.

        Example:
            >>> import tempfile
            >>> made = Run.load("data/samples/runs/sample").save_pretrained(tempfile.mkdtemp() + "/shared")
            >>> Run.from_pretrained(made).best().step
            288
        """
        from stage3.share import write_folder

        return write_folder(self, folder, checkpoint=checkpoint, data=self._for_card(data), license=license)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        checkpoint: int | None = None,
        data: Dataset | None = None,
        license: str = "",
        message: str = "",
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face Hub; returns the address.

        Args:
            repo_id: "owner/name"; made if it is not there.
            private: whether a new repository is seen by its owner alone.
            checkpoint: as in `save_pretrained`.
            data: likewise.
            license: likewise.
            message: of the commit.

        Raises:
            ConfigError: HF_HUB_OFFLINE is on (the default), or nobody is logged in (`hf auth login`).
            StorageError: the Hub does not take it.
        """
        from stage3.share import push_run

        return push_run(
            self,
            repo_id,
            private=private,
            message=message,
            checkpoint=checkpoint,
            data=self._for_card(data),
            license=license,
        )

    def _for_card(self, data: Dataset | None) -> Dataset | None:
        return self._over(data) if data is not None or "data" in self.__dict__ else None

    @classmethod
    def from_pretrained(cls, source: Path | str, *, path: Path | str | None = None, revision: str | None = None) -> Run:
        """A run that `save_pretrained` or `push_to_hub` wrote; its methods are given comics as `data=`.

        Args:
            source: its folder, or "owner/name" on the Hugging Face Hub.
            path: where a download goes; None is `runs/NAME`.
            revision: of the repository; None is the newest.

        Raises:
            ConfigError: `path` is there already.
            DataError: no such folder, no download (HF_HUB_OFFLINE is on by default), or no run.
        """
        from stage3.share import fetched

        return cls.load(fetched(source, path, revision))


def _named(data: Dataset | Path | str | None, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Dataset | None]:
    """Settings that name the data, and the data set itself where it is loaded with just these settings."""
    if data is None:
        return dict(settings), None
    if isinstance(data, str | Path):
        return {"data": str(data), **settings}, None
    if data.config is None:
        raise DataError("this data set was made in memory, from no folder: load it with Dataset.load(FOLDER)")
    named = {**data.settings(), **settings}
    wanted, was = Config.from_mapping(named).to_dict(), data.config.to_dict()
    changed = any(wanted[name] != was[name] for name in (*data.settings(), "precision"))  # all that reaches features
    return named, None if changed else data


def check_data(source: Path | str | Config, *, refresh: bool = False, **settings: Any) -> DataReport:
    """What is in a data set, what is left out of it, and why: `python -m stage3.data check`.

    Args:
        source: folder with a dataset.yaml, or settings that name the data.
        refresh: read all files again, ignoring the cache.
        **settings: such as `panel_format` or `labels`.

    Raises:
        ConfigError, DataError: there is no data set, or its manifest or labels cannot be read.

    Example:
        >>> check_data("data/samples").pages_kept
        536
    """
    base = source if isinstance(source, Config) else Config(data=str(source))
    return check(base.replace(**settings), refresh=refresh)


def import_comics(
    sources: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    panels: str = "find",
    format: str = "",
    images: Path | str | None = None,
    panel_classes: Sequence[str] = (),
    right_to_left: bool | None = None,
    tell: Tell = _quiet,
    **options: Any,
) -> ImportSummary:
    """Comics in any format of the field as a data set folder: `python -m stage3.data import`.

    The same call adds what is new, and goes on where it was interrupted; panel files that were changed by hand stay.

    Args:
        sources: CBZ and ZIP archives, folders of images, annotation files; see `docs/import.md`.
        out: the data set folder; new, or made by an earlier import.
        panels: "find", "none" (a page is one panel), or the folder or id of a learned detector; for pages without
            boxes.
        format: the format, where a source could be in several.
        images: where the images lie, if not beside their annotations.
        panel_classes: names of the classes that are panels, where they are called neither panel nor frame.
        right_to_left: direction of reading; None leaves it to the source.
        tell: takes each line about what is recognized.
        **options: `min_score`, `min_confidence` (0 to 1), `box_size` (width, height), `text` ("none", "ocr" or an
            image-to-text model, for panels without text), `workers` (pages of which text is read at once), `ignore`
            ("panels", "texts": what annotations say of these is not used) or `sample` (about so many pages alone, to
            look at).

    Returns:
        `pages` of the data set, `new` and `kept`, how many `panels`, `left_out` by reason, and `lines()` that say so.

    Raises:
        ConfigError: an unknown format or detector, or a number out of range.
        DataError: a source is missing, not recognized or in several formats, or nothing could be imported.
        StorageError: the folder cannot be written, or another import writes it.

    Example:
        >>> import tempfile
        >>> made = import_comics("data/samples/images/book000", tempfile.mkdtemp() + "/mine", panels="none")
        >>> len(made.pages), made.panels
        (8, 8)
    """
    from stage3.data.importers import import_comics as run_import

    return run_import(
        sources,
        out,
        panels=panels,
        format=format,
        images=images,
        panel_classes=panel_classes,
        right_to_left=right_to_left,
        tell=tell,
        **options,
    )


def export_panels(source: Path | str | Config, out: Path | str, format: str) -> Exported:
    """The panels of a data set for other tools: `python -m stage3.data export`.

    Args:
        source: folder with a dataset.yaml, or settings that name the data.
        out: the file, or for acbf the folder of one CBZ per book.
        format: "coco", "kumiko", "cvat" or "acbf".

    Returns:
        `files`, how many `pages` and `panels` are in them, and `left_out`.

    Raises:
        ConfigError, DataError: an unknown format, no data set, or no page of it has an image.
        StorageError: it cannot be written.

    Example:
        >>> import tempfile
        >>> export_panels("data/samples", tempfile.mkdtemp() + "/samples.json", "coco").pages
        640
    """
    from stage3.data.exporters import export_panels as run_export

    return run_export(source, out, format)


def diagnose_store(path: Path | str) -> Diagnosis:
    """Have the embeddings of a Zarr store collapsed? `python -m stage3.diagnose --embeddings`.

    Args:
        path: the store, `X.zarr`.

    Raises:
        DataError: no such store, or none of this layout.
        StorageError: a store of ours that is unfinished or damaged.

    Example:
        >>> diagnose_store("nowhere.zarr")
        Traceback (most recent call last):
        stage3.errors.DataError: nowhere.zarr: no such store
    """
    return _diagnose_store(path)[0]


def open_store(path: Path | str) -> Store:
    """A finished store of panel embeddings, open for reading; no chunk is read yet.

    Args:
        path: the store, `X.zarr`.

    Returns:
        `embeddings` (pages, 16, D) float32 and `masks` (pages, 16) bool as Zarr arrays, `metadata()`, `panels()`.

    Raises:
        DataError: there is no such store.
        StorageError: the export is unfinished, or a part is missing.

    Example:
        >>> open_store("nowhere.zarr")
        Traceback (most recent call last):
        stage3.errors.DataError: nowhere.zarr: no such store
    """
    from stage3.embed.stage4 import read_store

    return read_store(path)


def verify_store(path: Path | str) -> list[str]:
    """Every damage of a finished store, one sentence each; reads everything: `python -m stage3.embed --verify`.

    Args:
        path: the store, `X.zarr`.

    Raises:
        DataError: there is no such store.

    Example:
        >>> verify_store("nowhere.zarr")
        Traceback (most recent call last):
        stage3.errors.DataError: nowhere.zarr: no such store
    """
    from stage3.embed import verify

    return verify(path)


def list_runs(*roots: Path | str) -> list[Run]:
    """The runs in some folders, the one that was active last first; `damaged_runs` names those that do not open.

    Args:
        *roots: folders of runs; `runs` when left out.

    Example:
        >>> [run.name for run in list_runs("data/samples/runs")]
        ['sample']
    """
    return [Run.load(folder.path) for folder in _list_runs(roots or ("runs",))]


def damaged_runs(*roots: Path | str) -> list[tuple[Path, str]]:
    """The runs in some folders that `list_runs` leaves out because a file of theirs is damaged, each with the reason.

    Args:
        *roots: folders of runs; `runs` when left out.

    Example:
        >>> damaged_runs("data/samples/runs")
        []
    """
    return list_broken(roots or ("runs",))


def draw_samples(out: Path | str, books: int, *, seed: int = 0, pages: int = 8, image_format: str = "png") -> Summary:
    """Draw synthetic comics, in the formats that users have, with their ground truth: `python -m stage3.samples`.

    Args:
        out: folder to write to; new or empty.
        books: how many books.
        seed: the same seed draws the same books, byte for byte.
        pages: pages per book, cover included.
        image_format: "png" or "webp".

    Raises:
        ValueError: a number out of range.
        FileExistsError: the folder holds something.

    Example:
        >>> import tempfile
        >>> draw_samples(tempfile.mkdtemp(), books=1, pages=2).pages
        2
    """
    from stage3.samples import draw_books

    return draw_books(Path(out), books, seed, pages, image_format)


def convert_checkpoint(
    file: Path | str,
    run: Path | str,
    *,
    layout: str,
    tokenizer: Path | str,
    image_heads: int = 0,
    text_heads: int = 0,
    image_side: int = 0,
    tell: Tell = _quiet,
    **settings: Any,
) -> Run:
    """A run of a checkpoint of the original trainer, with the same embeddings: `python -m stage3.convert`.

    Args:
        file: `best_model.pt`, `best_model_vlm.pt` or a `checkpoint_vlm_*.pt`; opened in a confined process.
        run: folder of the run to make; new or empty.
        layout: "vlm" or "ocr": what the layout features that it was trained on mean.
        tokenizer: folder with its text model's tokenizer, such as a copy of all-MiniLM-L6-v2.
        image_heads: attention heads of its SigLIP, which are not in the file; 0: as usual for its width.
        text_heads: of its text model, likewise.
        image_side: pixels of the square crops of a ResNet alone; 0: 224, or 32 if it is narrower than ResNet-50.
        tell: takes each line that the command would print.
        **settings: where its comics are, such as `data`; without, methods of the run are given `data=`.

    Raises:
        ConfigError: an argument cannot be used, or the run is there already.
        DataError: the file is refused; says which tensor or object it is.
        StorageError: the run cannot be written.

    Example:
        >>> convert_checkpoint("best_model.pt", "runs/earlier", layout="pixels", tokenizer=".")
        Traceback (most recent call last):
        stage3.errors.ConfigError: layout: 'pixels' is not one of vlm, ocr
    """
    from stage3 import convert

    made = convert.convert_checkpoint(
        file,
        run,
        layout=layout,
        tokenizer=tokenizer,
        image_heads=image_heads,
        text_heads=text_heads,
        image_side=image_side,
        settings=settings,
        tell=tell,
    )
    return Run.load(made.path)


def run_experiments(
    findings: Iterable[str] = ("all",),
    *,
    seeds: int = 5,
    out: Path | str = "runs/evidence",
    jobs: int = 1,
    tell: Tell = _quiet,
    **settings: Any,
) -> dict[str, Any]:
    """Every finding of the loss review as an experiment; trains what is missing: `python -m stage3.ablate`.

    Args:
        findings: ids such as "F1", or "all".
        seeds: seeds 0 to N-1 of each arm; a verdict needs 3.
        out: folder of runs and tables.
        jobs: runs trained in parallel.
        tell: takes each line that the command would print.
        **settings: of `Config`, for all runs; `data` is the synthetic samples by default.

    Returns:
        `out runs trained rows failed`.

    Raises:
        ConfigError: an unknown finding or setting, or a number out of range.
        Interrupted: it was asked to stop; the same call goes on.

    Example:
        >>> run_experiments(["F99"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        stage3.errors.ConfigError: findings: unknown 'F99'. Choose from ...
    """
    from stage3 import ablate

    wanted: Sequence[str] = list(findings)
    return ablate.run_experiments(wanted, seeds, out, jobs=jobs, settings=settings, tell=tell)


__all__ = [
    "Run",
    "check_data",
    "convert_checkpoint",
    "damaged_runs",
    "diagnose_store",
    "draw_samples",
    "export_panels",
    "import_comics",
    "list_runs",
    "open_store",
    "run_experiments",
    "verify_store",
]
