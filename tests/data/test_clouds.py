"""Images in S3, Google Cloud and Azure by the packages that users have, from emulators on this machine.

`pip install -e ".[clouds]"` and, for Azure, `npm install -g azurite` bring them; a test is skipped, with the reason,
where its emulator is not installed.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stage3.config import Config
from stage3.data import readers, remote
from stage3.features import load_or_build

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("default")]

SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQ="
BUCKET = "comics"
CLOUDS = ("s3", "gs", "az")


@pytest.fixture(scope="module")
def comics(tmp_path_factory) -> Path:
    """Three pages of two panels, one name with a blank and an accent; NAME.png and json/NAME.json."""
    folder = tmp_path_factory.mktemp("comics")
    (folder / "json").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "é c"):
        Image.fromarray(rng.integers(0, 255, (60, 40, 3), dtype=np.uint8)).save(folder / f"{name}.png")
        panels = [{"box_2d": [0, x, 1000, x + 480], "description": f"{name}{x}"} for x in (0, 500)]
        (folder / "json" / f"{name}.json").write_text(json.dumps({"panels": panels}), encoding="utf-8")
    return folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def command_of(cloud: str, port: int) -> list[str]:
    """How the emulator starts."""
    own, where = Path(sys.executable).parent, ["--host", "127.0.0.1", "--port", str(port)]
    if cloud == "s3":
        pytest.importorskip("s3fs")
        pytest.importorskip("moto")
        return [str(own / "moto_server"), *where]
    if cloud == "gs":
        pytest.importorskip("gcsfs")
        pytest.importorskip("gcp_storage_emulator")
        return [str(own / "gcp-storage-emulator"), "start", *where, "--in-memory"]
    pytest.importorskip("adlfs")
    azurite = shutil.which("azurite-blob") or pytest.skip("needs azurite: npm install -g azurite")
    return [azurite, "--silent", "--skipApiVersionCheck", "--inMemoryPersistence", "--blobPort", str(port)]


def environment(cloud: str, port: int) -> dict[str, str]:
    """Where the cloud is and who asks, as each protocol's own tools are told."""
    place = f"http://127.0.0.1:{port}"
    if cloud == "s3":
        return {"AWS_ENDPOINT_URL": place, "AWS_ACCESS_KEY_ID": "us", "AWS_SECRET_ACCESS_KEY": SECRET}
    if cloud == "gs":  # the emulator asks for nobody's name
        return {"STORAGE_EMULATOR_HOST": place, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # azurite's own
    told = {"DefaultEndpointsProtocol": "http", "AccountName": account, "AccountKey": key}
    told["BlobEndpoint"] = f"{place}/{account}"
    return {"AZURE_STORAGE_CONNECTION_STRING": "".join(f"{name}={value};" for name, value in told.items())}


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the emulator ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the emulator does not answer")


@pytest.fixture(scope="module", params=CLOUDS)
def cloud(request, comics):
    """(protocol, its file system): the bucket of an emulator that holds the images."""
    port = free_port()
    process = subprocess.Popen(command_of(request.param, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(remote.SWITCH, "on")
            for name, value in environment(request.param, port).items():
                patch.setenv(name, value)
            wait_for(port, process)
            import fsspec

            system = fsspec.filesystem(request.param)
            system.mkdir(BUCKET)
            for path in comics.glob("*.png"):
                system.pipe_file(f"{BUCKET}/{path.name}", path.read_bytes())
            yield request.param, system
    finally:
        process.terminate()
        process.wait(20)


def settings(comics: Path, where: Path, form: str) -> Config:
    """A manifest with the images at a form such as s3://comics/{}.png."""
    lines = ["canonical_id,absolute_image_path", *(f"{n},{form.format(n)}" for n in ("a", "b", "é c"))]
    (where / "pages.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Config(
        manifest=str(where / "pages.csv"),
        panels=str(comics / "json"),
        cache_dir=str(where / "cache"),
        max_without_image=1.0,
        allow_remote_images=True,
        workers=2,
    )


def test_images_of_a_bucket_have_the_features_of_files(cloud, comics, tmp_path):
    protocol, system = cloud
    files = settings(comics, tmp_path, f"{comics}/{{}}.png").replace(cache_dir=str(tmp_path / "other"))
    local = load_or_build(readers.load(files), files, progress=False)
    config = settings(comics, tmp_path, f"{protocol}://{BUCKET}/{{}}.png")
    table = readers.load(config)
    found = load_or_build(table, config, progress=False)
    assert (found.report.computed_images, found.report.problems) == (6, {})
    np.testing.assert_array_equal(found.gather(np.arange(6))[0], local.gather(np.arange(6))[0])
    assert not load_or_build(table, config, progress=False).report.computed_images
    own = {name: (comics / f"{name}.png").read_bytes() for name in ("a", "b")}
    try:
        system.pipe_file(f"{BUCKET}/b.png", own["a"])
        system.rm_file(f"{BUCKET}/a.png")
        again = load_or_build(table, config, progress=False)
        assert again.report.problems == {"image:missing": 1}
        np.testing.assert_array_equal(again.gather(np.array([2]))[0], local.gather(np.array([0]))[0])
    finally:
        for name, data in own.items():
            system.pipe_file(f"{BUCKET}/{name}.png", data)


def test_a_stamp_changes_with_the_bytes_and_what_is_not_there_is_said(cloud, monkeypatch):
    protocol, system = cloud
    monkeypatch.setattr(remote, "WAITS", ())  # one attempt
    url = f"{protocol}://{BUCKET}/stamp.bin"
    system.pipe_file(f"{BUCKET}/stamp.bin", b"x" * 100)
    before = remote.stamp(url)
    assert before[0] == 100
    assert remote.stamp(url) == before
    system.pipe_file(f"{BUCKET}/stamp.bin", b"y" * 100)
    assert remote.stamp(url) != before
    assert remote.read(url) == b"y" * 100
    for gone in (f"{protocol}://{BUCKET}/none.bin", f"{protocol}://no-such-bucket/none.bin"):
        for look in (remote.stamp, remote.read):
            with pytest.raises(FileNotFoundError, match=r"none\.bin|no-such-bucket"):
                look(gone)


def test_with_a_wrong_key_access_is_denied_and_no_key_is_shown(cloud, monkeypatch):
    protocol, _ = cloud
    if protocol != "az":
        pytest.skip("this emulator lets everybody in")
    import fsspec

    monkeypatch.setattr(remote, "WAITS", ())
    told = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    known = told.split("AccountKey=")[1].split(";")[0]
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", told.replace(known, SECRET))
    fsspec.filesystem(protocol).clear_instance_cache()
    with pytest.raises(OSError, match=rf"^{protocol}://{BUCKET}/a\.png: .*(denied|authenti|authori)") as refused:
        remote.read(f"{protocol}://{BUCKET}/a.png")
    assert SECRET not in str(refused.value)
    assert known not in str(refused.value)
    fsspec.filesystem(protocol).clear_instance_cache()
