"""Each fault of a hub, with an empty and with a warm cache: a true sentence or the model, and nothing lost afterwards.

docs/hub.md has a table of what came of it. After a change: SDWIDGETS_WRITE_DOCS=1 pytest tests/test_hub_faults.py
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.hub_client import Client, save_model, sum_of_weights
from tests.hub_server import Hub

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[1] / "docs" / "hub.md"
FALLBACK = ' Meanwhile load("pocket") works without a download.'
NEVER = 10**6  # times: until the fault is taken away
UNREACHABLE = r"is not, or not wholly, on this machine, and the hub cannot be reached, or is out of order\.$"
FROM_CACHE = "the hub cannot be reached, or is out of order, so the copy in the cache is used"

BEGIN, END = "| --- | --- | --- |\n", "\n## "
_LOADED = "**the model**"


@dataclass
class Fault:
    """Something that goes wrong: how, and the end of what is seen with an empty and with a warm cache ("" is the model without a word)."""

    name: str
    empty: str
    warm: str = ""
    hub: dict = field(default_factory=dict)  # its attributes
    repo: dict = field(default_factory=dict)  # the repository's
    load: dict = field(default_factory=dict)  # arguments
    gone: bool = False
    moved: bool = False
    client: str = "client"
    resumes: bool = False


CUT = "each file that has arrived stays there after a break"
FAULTS = [
    Fault("The model moved to another name", CUT, moved=True),
    Fault("The model was removed", r"misspelled, removed, or private \(then run `hf auth login`\)\.$",
          "the hub does not have it any more, so the copy in the cache is used", gone=True),
    Fault("401: only for people who signed in", r"lets nobody read .* without signing in; run `hf auth login` \(or set HF_TOKEN\) and load it again\.$",
          "the hub does not open it now, so the copy in the cache is used", repo={"closed": True}),
    Fault("403: not for this account", r"does not let the stored token read .*; run `hf auth login` with one that may\.$",
          "the hub does not open it now, so the copy in the cache is used", repo={"closed": True}, load={"token": "wrong"}),
    Fault("403: gated, the licence not accepted", r"is gated: sign in at .* and accept its licence, then run `hf auth login`", repo={"gated": True}, load={"token": "wrong"}),
    Fault("404 from something else than the hub", r"cannot be fetched now: the hub answered 404\.$", FROM_CACHE, hub={"portal": (404, "not here")}),
    Fault("429 with Retry-After, once", f"asks to wait 1 s\n.*{CUT}", "asks to wait 1 s", hub={"busy": 1, "retry_after": 1}),
    Fault("429 again and again", UNREACHABLE, FROM_CACHE, hub={"busy": NEVER, "retry_after": 0}),
    Fault("500", UNREACHABLE, FROM_CACHE, hub={"portal": (500, "out of order")}),
    Fault("Slow: half a second an answer", CUT, hub={"slow": 0.5}),
    Fault("No answer within HF_HUB_ETAG_TIMEOUT", UNREACHABLE, FROM_CACHE, hub={"slow": 5}),
    Fault("A file that stalls, once", CUT, repo={"stalls": 1}, resumes=True),
    Fault("A file that always stalls", UNREACHABLE, repo={"stalls": NEVER}),
    Fault("A file that comes byte by byte", r"arrives at \d+ bytes a second, which would never end", repo={"trickles": True}),
    Fault("A file that is cut, once", CUT, repo={"breaks": 1}, resumes=True),
    Fault("A file that is always cut", UNREACHABLE, repo={"breaks": NEVER}, resumes=True),
    Fault("Wrong bytes, once", "is damaged in the cache and is fetched again", repo={"spoils": 1}),
    Fault("Wrong bytes, always", r"arrives with other bytes than the hub holds; try again on another network\.$", repo={"spoils": NEVER}),
    Fault("A page to sign in to the network", r"what answers is not the hub\. Is there a page to sign in to this network\?$", FROM_CACHE,
          hub={"portal": (200, "<html>Welcome to our hotel</html>")}),
    Fault("No network", UNREACHABLE, FROM_CACHE, client="no network"),
    Fault("HF_HUB_OFFLINE=1", r"is not, or not wholly, on this machine, and HF_HUB_OFFLINE is set\.$", "HF_HUB_OFFLINE is set, so the copy in the cache is used", client="offline"),
    Fault("A disk with 500 MB free", r"needs \d+ MB more in .*; make room, or set HF_HOME to a folder on a larger disk\.$", load={"room": 500_000_000}),
]  # fmt: skip


@dataclass
class World:
    """A hub, the clients of one home, the model, and what was seen of each fault."""

    hub: Hub
    clients: dict[str, Client]
    model: Path
    checksum: float
    seen: dict[tuple[str, str], str] = field(default_factory=dict)

    def load(self, hub_id: str, client: str = "client", **arguments) -> str:
        """All that is seen; a model that comes is the right one."""
        answer = self.clients[client](name=hub_id, **arguments)
        if "error" in answer:
            return answer["printed"] + answer["text"].removesuffix(FALLBACK)
        assert answer["sum"] == self.checksum
        return answer["printed"]

    def meet(self, fault: Fault, cache: str) -> str:
        hub_id = f"owner/{re.sub('[^a-z0-9]+', '-', fault.name.lower()).strip('-')}-{cache}"
        repo = self.hub.add(hub_id, self.model)
        if cache == "warm":
            self.load(hub_id)
        self.hub.requests.clear()
        if fault.gone:
            del self.hub.repos[hub_id]
        if fault.moved:
            self.hub.repos[hub_id + "-now"] = self.hub.repos.pop(hub_id)
            self.hub.moved[hub_id] = hub_id + "-now"
        with attributes(self.hub, fault.hub), attributes(repo, fault.repo):
            text = self.load(hub_id, fault.client, **fault.load)
        self.seen[fault.name, cache] = text.replace(hub_id, "NAME").replace(str(self.model.parent), "")
        self.hub.repos[hub_id] = repo
        self.load(hub_id, token="accepted")  # nothing was lost: the right model, afterwards
        return text


@contextmanager
def attributes(thing: object, values: dict):
    before = {name: getattr(thing, name) for name in values}
    vars(thing).update(values)
    yield
    vars(thing).update(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    quick = {"HF_HUB_ETAG_TIMEOUT": "2", "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
    with Hub() as closed:
        pass
    with ExitStack() as stack:
        hub = stack.enter_context(Hub(patience=10))
        clients = {
            "client": Client(folder, hub.url, **quick),
            "no network": Client(folder, closed.url, **quick),
            "offline": Client(folder, hub.url, HF_HUB_OFFLINE="1", **quick),
        }
        for client in clients.values():
            stack.enter_context(client)
        yield World(hub, clients, save_model(folder / "model"), sum_of_weights())


@pytest.mark.parametrize("cache", ["empty", "warm"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_a_true_sentence_or_a_model_and_loses_nothing(fault, cache, world):
    text = world.meet(fault, cache)
    expected = fault.empty if cache == "empty" else fault.warm
    assert re.search(expected, text) if expected else text.count("\n") == 1, text
    if fault.resumes and cache == "empty":
        assert any(r[2] and not r[2].startswith("bytes=0-") for r in world.hub.requests), (
            "the rest was not fetched alone"
        )


def test_the_page_shows_what_was_seen(world):
    if len(world.seen) < 2 * len(FAULTS):
        pytest.skip("needs the answers of the whole file")
    rows = "".join(
        f"| {f.name} | {_cell(world.seen[f.name, 'empty'])} | {_cell(world.seen[f.name, 'warm'])} |\n" for f in FAULTS
    )
    head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    page = head + BEGIN + rows + END + rest.partition(END)[2]
    if os.environ.get("SDWIDGETS_WRITE_DOCS"):
        PAGE.write_text(page, "utf-8")
    assert PAGE.read_text("utf-8") == page, "docs/hub.md is of other sentences: see the first lines of this file"


def _cell(text: str) -> str:
    """The lines of a cell, each once, without the rate, which differs from run to run; what `load` says of a model is _LOADED."""
    text = re.sub(r"arrives at \d+ bytes", "arrives at 30 bytes", text)
    lines = [_LOADED if "StableDiffusionPipeline on cpu" in line else line for line in text.splitlines()]
    times = {line: lines.count(line) for line in lines}
    return "<br>".join(line + f" ({n} times)" * (n > 1) for line, n in times.items()).replace("|", "\\|")
