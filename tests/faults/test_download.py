"""A server that sends good, damaged, missing and endless files: what isn't Fashion-MNIST is never kept."""

import gzip
import hashlib
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from jaxnet.data import download, load
from jaxnet.data.load import CHECKSUMS

MODULE = sys.modules["jaxnet.data.load"]  # the package has the function under this name
NAMES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CONTENT = {
    NAMES[0]: bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(range(196)) * 8,
    NAMES[1]: bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3]),
}


class Handler(BaseHTTPRequestHandler):
    """What it sends is what the first part of the path says."""

    def do_GET(self):
        _, how, name = self.path.split("/")
        good = gzip.compress(CONTENT[name.removesuffix(".gz")], mtime=0)
        self.server.asked.append(self.path)
        if how == "missing":
            self.send_error(404)
            return
        body = {
            "flipped": good[:15] + bytes([good[15] ^ 4]) + good[16:],
            "other": gzip.compress(b"something else"),
            "page": b"<html>please log in</html>",
            "empty": b"",
            "half": good[:-20],
            "large": bytes(3000),
            "bomb": gzip.compress(bytes(1_000_000)),
        }.get(how, good)
        self.send_response(200)
        if how != "cut":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for i in range(0, len(body), 5 if how == "slow" else len(body) or 1):
            if how == "stalled":
                self.server.over.wait(60)
            if how == "slow" and self.server.over.wait(0.05):
                return
            self.wfile.write(body[i : i + 5] if how == "slow" else body[: 40 if how == "cut" else None])
            self.wfile.flush()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path_factory):
    for name, content in CONTENT.items():
        monkeypatch.setitem(CHECKSUMS, name, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(MODULE, "FOLDER", tmp_path_factory.getbasetemp() / "nowhere")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.over, server.handle_error = [], threading.Event(), lambda *_: None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def address(server, how):
    return f"http://127.0.0.1:{server.server_port}/{how}"


def test_it_is_downloaded_once_and_only_when_asked_for(server, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNET_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(MODULE, "ADDRESS", address(server, "good"))
    with pytest.raises(FileNotFoundError, match=r"got no t10k-images-idx3-ubyte.gz, .* or download=True"):
        load("fashion_mnist", part="test")
    assert server.asked == []
    for options in ({"download": True}, {"download": True}, {}):
        x, y = load("fashion_mnist", part="test", **options)
        np.testing.assert_array_equal(x.ravel()[:196] * 255, np.arange(196, dtype=x.dtype))
        assert y.tolist() == [7, 3]
    assert server.asked == [f"/good/{name}.gz" for name in NAMES]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [f"{name}.gz" for name in NAMES]
    load("fashion_mnist", part="test", folder=tmp_path / "own", download=address(server, "good/"))
    assert len(server.asked) == 4
    assert len(list((tmp_path / "own").iterdir())) == 2


REFUSED = {
    "flipped": (ValueError, "got no whole gzip file|got SHA-256"),
    "other": (ValueError, r"got SHA-256 \w{64} of the unpacked bytes, expected \w{64}; fetch it from elsewhere"),
    "page": (ValueError, r"got no whole gzip file \(Not a gzipped file"),
    "empty": (ValueError, "got SHA-256|got no whole gzip file"),
    "half": (ValueError, "got no whole gzip file"),
    "cut": (ValueError, "got no whole gzip file"),
    "bomb": (ValueError, "got SHA-256"),
    "missing": (OSError, "got HTTP Error 404: Not Found, expected a file"),
    "large": (OSError, "got more than 2,000 bytes"),
    "stalled": (OSError, "got timed out, expected a file; is the net there"),
    "slow": (OSError, r"got only [\d,]+ bytes in 0 s"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_not_the_file_is_not_kept(server, how, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 2_000)
    if how in ("stalled", "slow"):  # the others shall not fail by a busy machine's pauses
        monkeypatch.setattr(download, "SILENCE", 0.3)
        monkeypatch.setattr(download, "PATIENCE", 0.3)
    kind, sentence = REFUSED[how]
    with pytest.raises(kind, match=sentence) as caught:
        load("fashion_mnist", part="test", folder=tmp_path, download=address(server, how))
    assert address(server, how) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_server(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        here = f"http://127.0.0.1:{closed.getsockname()[1]}/good"
    with pytest.raises(OSError, match=r"got <urlopen error .*refused.*>, expected a file; is the net there"):
        load("fashion_mnist", folder=tmp_path, download=here)


@pytest.mark.parametrize("given", [3, None, b"http://127.0.0.1"])
def test_what_no_address_is(given):
    with pytest.raises(TypeError, match=r"download: got .*, expected True, False or the address"):
        load("fashion_mnist", download=given)


def test_other_sets_are_not_downloaded():
    with pytest.raises(ValueError, match="download: got a value with 'iris', expected it only with fashion_mnist"):
        load("iris", download=True)


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/c"}, "/c/jaxnet"),
        ("linux", {"HOME": "/h"}, "/h/.cache/jaxnet"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches/jaxnet"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/jaxnet"),
        ("linux", {"JAXNET_DATA": "/d", "XDG_CACHE_HOME": "/c"}, "/d"),
    ],
)
def test_the_cache_is_where_the_system_has_it(platform, environment, expected, monkeypatch):
    for name in ("JAXNET_DATA", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(download.sys, "platform", platform)
    assert download.cache_folder().as_posix() == expected
