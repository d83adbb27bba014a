"""The registry against a server on this machine, which can refuse, truncate and alter files."""

import hashlib
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sciflow.data import registry
from sciflow.data.datasets import DATASETS, Dataset
from sciflow.errors import DataError

CONTENT = b"cells and times " * 4096
BROWSER = {"User-Agent": "Mozilla/5.0 (X11)"}


class Handler(BaseHTTPRequestHandler):
    """/file: the content; /shut: 403 to Python clients; /cut: less than announced; /cut-silent."""

    def do_GET(self):
        self.server.requests.append(self.path)
        agent = self.headers.get("User-Agent", "").lower()
        if self.path == "/shut" and "python" in agent:
            self.send_error(403)
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/cut-silent":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path.startswith("/cut") else CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.requests = []
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Empty data folder and cache; no proxy between the test and its own server."""
    for name in ("data", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SCIFLOW_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SCIFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "data", tmp_path / "cache"


@pytest.fixture
def entry(server, monkeypatch):
    """A data set whose file the server has."""
    dataset = Dataset(
        name="served",
        filename="singlecell/served.npz",
        url=f"http://127.0.0.1:{server.server_port}/file",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="none",
        citation="nobody",
        description="bytes",
        size=len(CONTENT),
    )

    def add(**changes):
        if "page" in changes:
            changes["url"] = f"http://127.0.0.1:{server.server_port}{changes.pop('page')}"
        changed = replace(dataset, **changes)
        monkeypatch.setitem(DATASETS, "served", changed)
        return changed

    return add


def test_entries_are_sound():
    names = list(DATASETS)
    assert names == [dataset.name for dataset in DATASETS.values()]
    # The cache is one folder: two data sets must not share a file name there.
    assert len({dataset.basename for dataset in DATASETS.values()}) == len(names)
    for dataset in DATASETS.values():
        assert len(dataset.sha256) == 64
        assert set(dataset.sha256) <= set("0123456789abcdef")
        assert dataset.url is None or dataset.url.startswith("https://")
        assert dataset.licence and dataset.citation and dataset.description
        if dataset.url and "mendeley" in dataset.url:
            assert dataset.headers["User-Agent"].startswith("Mozilla/5.0")


def test_files_present_are_the_registered_ones(data_dir, monkeypatch):
    """Every file in the folder of real data has the size and hash of its entry."""
    monkeypatch.setenv("SCIFLOW_DATA", str(data_dir))
    here = [row for row in registry.listing() if row.where == "data folder"]
    if not here:
        pytest.skip("SCIFLOW_DATA holds none of the data sets")
    for row in here:
        assert registry.path(row.name, download=False) == row.path
        assert DATASETS[row.name].size in (None, row.path.stat().st_size)


def test_download_then_cache(folders, entry, server):
    entry()
    assert registry.find("served") is None
    file = registry.path("served")
    assert file == folders[1] / "served.npz"
    assert file.read_bytes() == CONTENT
    assert registry.path("served") == registry.find("served") == file
    assert server.requests == ["/file"]


def test_data_folder_comes_first(folders, entry, server):
    entry()
    data, cache = folders
    (cache / "served.npz").write_bytes(CONTENT)
    assert registry.path("served") == cache / "served.npz"
    (data / "served.npz").write_bytes(CONTENT)
    assert registry.path("served") == data / "served.npz"
    (data / "singlecell").mkdir()
    (data / "singlecell" / "served.npz").write_bytes(CONTENT)
    assert registry.path("served") == data / "singlecell" / "served.npz"
    assert server.requests == []


def test_without_data_folder(folders, entry, monkeypatch):
    entry()
    monkeypatch.delenv("SCIFLOW_DATA")
    assert registry.path("served") == folders[1] / "served.npz"


def test_cache_defaults_to_that_of_the_user(folders, entry, monkeypatch):
    import pooch

    entry()
    monkeypatch.delenv("SCIFLOW_CACHE")
    monkeypatch.setattr(pooch, "os_cache", lambda project: folders[1] / project)
    assert registry.path("served") == folders[1] / "sciflow" / "served.npz"


def test_host_that_refuses_python(folders, entry):
    entry(page="/shut")
    with pytest.raises(DataError, match="403"):
        registry.path("served")
    entry(page="/shut", headers=BROWSER)
    assert registry.path("served").read_bytes() == CONTENT


def test_download_of_another_file(folders, entry):
    entry(sha256="0" * 64)
    found = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(DataError, match=f"'served'.*{'0' * 64}.*{found}"):
        registry.path("served")
    assert list(folders[1].iterdir()) == []


@pytest.mark.parametrize("page", ["/cut", "/cut-silent"])
def test_truncated_download_is_not_kept(folders, entry, page):
    entry(page=page)
    with pytest.raises(DataError, match="'served' could not be downloaded"):
        registry.path("served")
    assert list(folders[1].iterdir()) == []
    entry()
    assert registry.path("served").read_bytes() == CONTENT


def test_interrupted_download_is_not_kept(folders, entry, monkeypatch):
    import pooch

    def interrupt(self, url, output, *args):
        Path(output).write_bytes(CONTENT[:100])
        raise KeyboardInterrupt

    entry()
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        registry.path("served")
    assert list(folders[1].iterdir()) == []


def test_no_network(folders, entry):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    dataset = entry(url=f"http://127.0.0.1:{port}/file")
    with pytest.raises(DataError) as error:
        registry.path("served")
    message = str(error.value)
    assert dataset.url in message
    assert "singlecell/served.npz" in message and "SCIFLOW_DATA" in message
    assert str(folders[1] / "served.npz") in message


def test_missing_page(folders, entry):
    entry(page="/missing")
    with pytest.raises(DataError, match="404"):
        registry.path("served")


@pytest.mark.parametrize("folder", [0, 1])
def test_wrong_file_in_place_is_left_alone(folders, entry, server, folder):
    dataset = entry()
    file = folders[folder] / "served.npz"
    file.write_bytes(b"something of the user")
    found = hashlib.sha256(b"something of the user").hexdigest()
    with pytest.raises(DataError) as error:
        registry.path("served")
    for part in (str(file), "'served'", dataset.sha256, found):
        assert part in str(error.value)
    assert file.read_bytes() == b"something of the user"
    assert server.requests == []
    # A file changed after it was checked is checked again.
    file.write_bytes(CONTENT)
    assert registry.path("served") == file
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match="expected sha256"):
        registry.path("served")


def test_download_false(folders, entry, server):
    dataset = entry()
    with pytest.raises(DataError) as error:
        registry.path("served", download=False)
    assert dataset.url in str(error.value)
    assert server.requests == []


def test_local_only_says_where_to_put_it(folders, entry):
    entry(url=None)
    with pytest.raises(DataError, match=r"put it as singlecell/served.npz.*SCIFLOW_DATA names"):
        registry.path("served")


def test_unknown_name_lists_the_known(folders):
    for function in (registry.find, registry.path, registry.fetch):
        with pytest.raises(DataError) as error:
            function("embriod-body")
        message = str(error.value)
        assert message.index("did you mean") < message.index("'embryoid-body'")
        assert message.index("'embryoid-body'") < message.index("known are")
        for name in DATASETS:
            assert name in message.partition("known are")[2]
    with pytest.raises(DataError, match="unknown data set 'zzz': known are embryoid-body"):
        registry.path("zzz")


def test_fetch_looks_at_all_names_first(folders, entry, server):
    entry()
    with pytest.raises(DataError, match="'servd'.*'served'"):
        registry.fetch(["served", "servd"])
    assert server.requests == []
    assert registry.fetch(["served", "served"]) == [folders[1] / "served.npz"] * 2
    assert registry.fetch("served") == [folders[1] / "served.npz"]
    assert server.requests == ["/file"]


def test_listing(folders, entry):
    entry()
    data, cache = folders
    rows = {row.name: row for row in registry.listing()}
    assert list(rows) == list(DATASETS)
    assert {row.where for row in rows.values()} == {"not here"}
    assert rows["served"].size == len(CONTENT)
    assert rows["served"].downloadable and not rows["emt"].downloadable
    assert rows["emt"].licence == DATASETS["emt"].licence
    (cache / "served.npz").write_bytes(b"abc")
    (data / "emt.csv").write_bytes(b"abcd")
    rows = {row.name: row for row in registry.listing()}
    assert (rows["served"].where, rows["served"].size) == ("cache", 3)
    assert (rows["emt"].where, rows["emt"].path) == ("data folder", data / "emt.csv")


def test_data_folder_that_is_none(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("SCIFLOW_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="SCIFLOW_DATA is '.*nowhere', which is not a folder"):
        registry.listing()


def test_progress_is_for_terminals_only(folders, entry, capfd):
    entry()
    registry.path("served")
    assert "%" not in capfd.readouterr().err


def test_readme_names_every_data_set():
    text = (Path(__file__).parents[2] / "data" / "README.md").read_text()
    for dataset in DATASETS.values():
        section = text.partition(f"### `{dataset.name}`\n")[2].partition("\n### ")[0]
        for fact in (dataset.sha256, dataset.filename, dataset.licence, dataset.citation):
            assert fact in section, (dataset.name, fact)
        assert (dataset.url or "put in place by hand") in section
        assert dataset.description in section
        if dataset.size:
            assert f"{dataset.size:,} bytes" in section
    assert text.count("\n### `") == len(DATASETS)
