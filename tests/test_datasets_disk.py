"""Full disks and killed processes: no file is left half-written, and the work resumes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import fake_archives
import pytest

from benchmarks.datasets.prepare import prepare

ROOT = Path(__file__).resolve().parents[1]


def make(tmp_path):
    return prepare("d", dataset="digits", folder=tmp_path / "data", archives=tmp_path / "archives")


def write_images(folder, count):
    folder.mkdir()
    for i in range(count):
        image = fake_archives.encoded(fake_archives.picture(0, i, 40), "PNG")
        (folder / f"{i}.png").write_bytes(image)


def files_under(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


LIMITED = """
import resource, sys
from pathlib import Path
from benchmarks.datasets.prepare import prepare
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
try:
    prepare("d", dataset="folder", path={images!r}, clusters=2, size=256, folder=Path({folder!r}), archives=Path("a"))
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


def test_full_disk_leaves_nothing_and_says_so(tmp_path):
    write_images(tmp_path / "images", 5)
    code = LIMITED.format(folder=str(tmp_path / "data"), images=str(tmp_path / "images"))
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2, done.stderr
    assert f"cannot write {tmp_path / 'data' / 'images.npy'}" in done.stderr and "make room" in done.stderr
    assert not files_under(tmp_path / "data")


@pytest.mark.parametrize("place", range(1, 4))
def test_disk_that_fills_up_on_the_way(tmp_path, monkeypatch, place):
    calls = []

    def full(descriptor, data, offset, write=os.pwrite):
        calls.append(offset)
        if len(calls) >= 500 * place:
            raise OSError(28, "No space left on device")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="cannot write .*images.npy: No space left"):
        make(tmp_path)
    assert not files_under(tmp_path / "data")
    monkeypatch.undo()
    assert json.loads(make(tmp_path).read_text())["count"] == 1797


def test_short_writes_are_completed(tmp_path, monkeypatch):
    whole = json.loads(make(tmp_path).read_text())["images_sha256"]
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset, write=os.pwrite: write(fd, data[:100], offset))
    assert json.loads(make(tmp_path).read_text())["images_sha256"] == whole


KILLED = """
    import time
    from pathlib import Path
    from benchmarks.datasets import folder
    from benchmarks.datasets.prepare import prepare

    def slow(slices, rows, images=folder.slice_images):
        for number, image in enumerate(images(slices, rows)):
            if number > 20:
                time.sleep(60)
            yield image

    folder.slice_images = slow
    prepare("d", dataset="folder", path={images!r}, clusters=2, folder=Path({data!r}), archives=Path("x"))
"""


def test_kill_leaves_no_final_name_no_process_and_the_next_run_does_it(tmp_path):
    write_images(tmp_path / "images", 40)
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED).format(images=str(tmp_path / "images"), data=str(tmp_path / "data")))
    child = subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    wait_for(lambda: any((tmp_path / "data").glob(".*")))
    time.sleep(0.5)
    assert not children(child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not {"images.npy", "benchmark.json"} & files_under(tmp_path / "data")
    prepare(
        "d", dataset="folder", path=tmp_path / "images", clusters=2, folder=tmp_path / "data", archives=tmp_path / "x"
    )
    assert files_under(tmp_path / "data") == {"images.npy", "image_names.json", "benchmark.json"}


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came about")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
