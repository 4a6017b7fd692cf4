"""`python -m scripts.download_models` beside a hub on this machine; nothing outside is asked."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import get_token

from scripts import download_models
from scripts.released.choice import by_name
from scripts.released.fetch import FetchError, Remote, fetch, part_of
from scripts.released.hub import Wanted
from scripts.released.sums import Sum
from tests.deploy.stand_in_hub import Hub, etag_of, serving

ROOT = Path(__file__).parents[2]
CASCADE, CLIP_G, CLIP_L = (
    "stabilityai/stable-cascade",
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
    "openai/clip-vit-large-patch14",
)
STAGE_A = f"{CASCADE}/stage_a.safetensors"
CONSENT = ["--accept-licence", "stable-cascade-nc-community"]
CONTENT = bytes(range(256)) * 64


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the command takes for the real one; the test runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("scripts.released.fetch.FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("scripts.released.hub.FIRST_WAIT_S", 0.01)
    with serving({STAGE_A: CONTENT, f"{CASCADE}/controlnet/canny.safetensors": CONTENT[::-1]}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1, errors
    return errors


def test_a_file_comes_to_where_configs_look_for_it(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["stage_a.safetensors", "canny.safetensors"]
    assert download_models.main([*names, *CONSENT]) == 0
    assert {path.name: path.read_bytes() for path in Path("models").iterdir()} == {
        "stage_a.safetensors": CONTENT,
        "canny.safetensors": CONTENT[::-1],
    }
    said = capsys.readouterr().out
    assert "Non-Commercial Research Community" in said
    assert "https://huggingface.co/stabilityai/stable-cascade/blob/main/LICENSE" in said
    assert download_models.main([*names, *CONSENT]) == 0
    assert capsys.readouterr().out.count("there already, checksum right") == 2
    assert hub.gets(STAGE_A) == [None]


def test_a_connection_that_breaks_is_gone_on_with(hub: Hub) -> None:
    hub.breaks_after[STAGE_A] = 5000, 2
    hub.busy[STAGE_A] = 2
    assert download_models.main(["stage_a.safetensors", *CONSENT]) == 0
    assert hub.gets(STAGE_A) == [None, "bytes=5000-", "bytes=10000-"]
    assert Path("models/stage_a.safetensors").read_bytes() == CONTENT


def test_a_server_without_ranges_begins_anew(hub: Hub) -> None:
    hub.breaks_after[STAGE_A], hub.ranges = (5000, 1), False
    assert download_models.main(["stage_a.safetensors", *CONSENT]) == 0
    assert Path("models/stage_a.safetensors").read_bytes() == CONTENT


def test_a_server_that_never_gives_a_byte_is_left_in_the_end(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.breaks_after[STAGE_A] = 0, 100
    assert download_models.main(["stage_a.safetensors", *CONSENT]) == 1
    assert "the connection ended early, 6 times in a row; 0 bytes are kept" in last_error(capsys)
    assert hub.gets(STAGE_A) == [None] * 6


def test_a_killed_download_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    """A real process, killed in the middle of a file."""
    hub.pause_s = 0.2
    command = [sys.executable, "-m", "scripts.download_models", "stage_a.safetensors", *CONSENT]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    )
    part = tmp_path / f"models/.stage_a.safetensors.{etag_of(STAGE_A, CONTENT)[:16]}.part"
    until = time.monotonic() + 600
    while not (part.exists() and part.stat().st_size > 2000) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    assert 2000 < kept < len(CONTENT)
    assert not (tmp_path / "models/stage_a.safetensors").exists()
    hub.pause_s = 0
    assert download_models.main(["stage_a.safetensors", *CONSENT]) == 0
    assert hub.gets(STAGE_A)[-1] == f"bytes={kept}-"
    assert Path("models/stage_a.safetensors").read_bytes() == CONTENT


def test_wrong_bytes_get_no_name_and_are_kept(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.wrong.add(STAGE_A)
    assert download_models.main(["stage_a.safetensors", "canny.safetensors", *CONSENT]) == 1
    problem = last_error(capsys)
    assert "models/stage_a.safetensors: expected the checksum " in problem
    assert "kept as models/stage_a.safetensors.wrong: delete it and run the command again" in problem
    assert {path.name for path in Path("models").iterdir()} == {
        "stage_a.safetensors.wrong",
        "canny.safetensors",
    }


def test_a_file_that_is_there_is_known_by_its_content(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the right size, but another: it is not trusted, and not touched."""
    path = Path("models/stage_a.safetensors")
    path.parent.mkdir()
    path.write_bytes(CONTENT[::-1])
    assert download_models.main(["stage_a.safetensors", *CONSENT]) == 1
    assert "there already, but its checksum is" in last_error(capsys)
    assert path.read_bytes() == CONTENT[::-1]
    assert hub.gets(STAGE_A) == []


def test_a_part_that_is_longer_than_the_file_is_none_of_it(hub: Hub) -> None:
    part = Path(f"models/.stage_a.safetensors.{etag_of(STAGE_A, CONTENT)[:16]}.part")
    part.parent.mkdir()
    part.write_bytes(CONTENT + b"more")
    assert download_models.main(["stage_a.safetensors", *CONSENT]) == 0
    assert Path("models/stage_a.safetensors").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            401,
            "the server refuses (401); accept the licence on the model's page",
        ),
        (403, "the server refuses (403); accept the licence"),
        (404, "not there (404); look for it on the model's page, and name its --revision"),
        (500, "the server says 500"),
    ],
)
def test_refusals_are_one_line(
    hub: Hub, capsys: pytest.CaptureFixture[str], status: int, message: str
) -> None:
    hub.status[STAGE_A] = status
    assert download_models.main(["stage_a.safetensors", *CONSENT]) == 1
    assert message in last_error(capsys)


def test_the_token_goes_to_the_hub_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert download_models.main(["stage_a.safetensors", *CONSENT]) == 0
    sent = {path.split("/")[1]: secret for _, path, _, secret in hub.seen}
    assert sent == {"stabilityai": "Bearer hf_secret", "cdn": None}


def test_a_token_that_is_saved_on_this_machine_stays_here(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("hf_saved")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    assert get_token() == "hf_saved"
    assert download_models.main(["stage_a.safetensors", *CONSENT]) == 0
    assert {secret for *_, secret in hub.seen} == {None}


def test_what_is_here_of_a_file_needs_no_room(tmp_path: Path) -> None:
    size = shutil.disk_usage(tmp_path).free + 10**9
    remote, target = Remote("http://127.0.0.1:9/x", size, Sum("0")), tmp_path / "models" / "x"
    item = Wanted(by_name("stage_a.safetensors"), remote, target)
    with pytest.raises(FetchError, match="are to be fetched"):
        download_models.check_room([item])
    target.parent.mkdir()
    with part_of(remote, target).open("wb") as part:
        part.truncate(2 * 10**9)  # takes no room itself
    download_models.check_room([item])


def test_a_full_disk_is_found_before_anything_is_fetched(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.claimed_size[STAGE_A] = 10**15
    assert download_models.main(["stage_a.safetensors", *CONSENT]) == 1
    assert "1e+06 GB are to be fetched, " in last_error(capsys)
    assert hub.gets(STAGE_A) == []


def test_a_file_of_no_hub_is_known_by_the_sum_in_its_name(hub: Hub, tmp_path: Path) -> None:
    """As torchvision's: size unknown before, the beginning of a checksum."""
    hub.files["vgg.pth"] = CONTENT
    hub.breaks_after["vgg.pth"] = 100, 1
    digits = etag_of("vgg.pth", CONTENT)
    fetch(Remote(f"{hub.url}/cdn/vgg.pth", None, Sum(digits[:8])), tmp_path / "vgg.pth")
    assert (tmp_path / "vgg.pth").read_bytes() == CONTENT
    with pytest.raises(FetchError, match="expected the checksum 00000000"):
        fetch(Remote(f"{hub.url}/cdn/vgg.pth", None, Sum("00000000")), tmp_path / "other.pth")


def test_an_encoder_goes_to_the_hubs_cache(tmp_path: Path) -> None:
    """A process of its own, as the cache's place is read once; then the hub's library finds all, offline."""
    files = {f"{CLIP_G}/{name}": name.encode() * 9 for name in ("config.json", "merges.txt", "README.md")}
    files |= {
        f"{CLIP_G}/model-00001-of-00002.safetensors": CONTENT,
        f"{CLIP_G}/model-00002-of-00002.safetensors": b"2",
    }
    files |= {f"{CLIP_G}/model.safetensors.index.json": b"{}", f"{CLIP_G}/open_clip_pytorch_model.bin": b"no"}
    with serving(files) as hub:
        around = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
        }
        command = [sys.executable, "-m", "scripts.download_models", CLIP_G]
        done = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        again = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, text=True, timeout=900)
        assert again.stdout.count("there already, checksum right") == 5
    code = f"import huggingface_hub as h; print(h.snapshot_download({CLIP_G!r}, local_files_only=True))"
    found = subprocess.run(
        [sys.executable, "-c", code], env=around, capture_output=True, text=True, timeout=900
    )
    folder = Path(found.stdout.strip())
    names = {path.name: path.read_bytes() for path in folder.iterdir()}
    wanted = {name.rpartition("/")[2]: content for name, content in files.items()}
    assert names == {
        name: content
        for name, content in wanted.items()
        if name not in ("README.md", "open_clip_pytorch_model.bin")
    }
