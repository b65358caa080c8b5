"""Files are complete or absent, even if the writer is killed or the disk is full; the record states what ran."""

import contextlib
import hashlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from scl.engine import artifacts, io, provenance

ROOT = Path(__file__).parent.parent
ERRORS = [RuntimeError("mistake"), KeyboardInterrupt(), FileNotFoundError(2, "gone", "another file")]


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_atomic_writes_beside_and_keeps_the_suffix(tmp_path):
    path = tmp_path / "deep" / "weights.npy"
    with io.atomic(path) as tmp:
        np.save(tmp, np.arange(3))
        assert tmp.parent == path.parent and tmp.suffix == ".npy" and not path.exists()
    assert np.load(path).tolist() == [0, 1, 2]
    assert names(path.parent) == ["weights.npy"]


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_in_the_block_leaves_the_old_file_and_passes_through(tmp_path, error):
    path = tmp_path / "runs.csv"
    path.write_text("old")
    with pytest.raises(type(error)) as caught, io.atomic(path) as tmp:
        tmp.write_text("half of the n")
        raise error
    assert caught.value is error
    assert path.read_text() == "old" and names(tmp_path) == ["runs.csv"]


def test_kill_9_while_writing_leaves_the_old_file_and_the_next_write_clears_up(tmp_path):
    path = tmp_path / "record.json"
    path.write_text("old")
    code = (
        "import sys, time\nfrom scl.engine.io import atomic\nwith atomic(sys.argv[1]) as tmp:\n"
        "    tmp.write_text('half, and longer than what comes after')\n    print('half', flush=True)\n"
        "    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout.readline() == b"half\n"
            assert path.read_text() == "old"
        finally:
            writer.kill()
    assert writer.returncode == -signal.SIGKILL and path.read_text() == "old"
    with io.atomic(path) as tmp:
        with open(tmp, "r+") as file:  # even a writer that does not truncate finds no remains
            file.write("new")
    assert path.read_text() == "new" and names(tmp_path) == ["record.json"]


def test_a_second_writer_of_the_same_file_waits_for_the_first(tmp_path):
    path, inside = tmp_path / "a.txt", threading.Event()

    def second():
        with io.atomic(path) as tmp:
            inside.set()
            tmp.write_text("second")

    thread = threading.Thread(target=second)
    with io.atomic(path) as tmp:
        tmp.write_text("first")
        thread.start()
        assert not inside.wait(0.3)
        assert tmp.read_text() == "first"
    thread.join(60)
    assert path.read_text() == "second" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [io.errno.ENOSYS, None], ids=["no locks", "locks between processes of a node"])
def test_without_working_locks_the_last_writer_replaces_a_file_and_the_others_stop(tmp_path, monkeypatch, number):
    def flock(descriptor, operation):
        if number:
            raise OSError(number, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    path, neighbor = tmp_path / "checkpoint.pt", tmp_path / ".checkpoint.prev.tmp.pt"  # of another file
    neighbor.touch()
    with pytest.raises(OSError, match="cannot write .*checkpoint.pt: No such file"):
        with io.atomic(path) as first:
            first.write_text("first, half of it")
            with io.atomic(path) as second:
                second.write_text("second")
                assert names(tmp_path) == sorted([neighbor.name, second.name])  # nothing is left over
    assert path.read_text() == "second" and names(tmp_path) == [neighbor.name, path.name]


@pytest.mark.parametrize("small_disk", ["256k"], indirect=True)
@pytest.mark.parametrize(
    "write",
    [
        lambda tmp, n: tmp.write_bytes(os.urandom(n)),
        lambda tmp, n: np.save(tmp, np.ones(n // 8)),  # OSError without errno
        lambda tmp, n: np.savez(tmp, a=np.ones(n // 8)),
        lambda tmp, n: torch.save(torch.ones(n // 4), tmp),  # RuntimeError
    ],
    ids=["bytes", "npy", "npz", "torch"],
)
def test_a_full_disk_is_said_and_once_there_is_room_it_goes_on(small_disk, write, request):
    path = small_disk / f"weights.{request.node.callspec.id.partition('-')[0]}"
    path.write_bytes(b"old")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(150_000))
    with pytest.raises(OSError, match="weights.*No space left.*make room") as caught:
        with io.atomic(path) as tmp:
            write(tmp, 200_000)
    assert caught.value.errno == io.errno.ENOSPC
    assert path.read_bytes() == b"old" and names(small_disk) == sorted(["filler", path.name])
    filler.unlink()
    with io.atomic(path) as tmp:
        write(tmp, 200_000)
    assert path.stat().st_size >= 200_000 and names(small_disk) == [path.name]


def test_a_limit_on_file_size_is_said_too(tmp_path):
    path = tmp_path / "images.npy"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match="cannot write .*images.npy: File too large"):
            with io.atomic(path) as tmp:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
                tmp.write_bytes(bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old" and names(tmp_path) == ["images.npy"]


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*file/x.json"):
        with io.atomic(tmp_path / "file" / "x.json"):
            pass

    def denied(*arguments, **_):
        raise PermissionError(io.errno.EACCES, "Permission denied", "whatever")

    monkeypatch.setattr(io.os, "open", denied)
    with pytest.raises(PermissionError, match="cannot write .*x.json: Permission denied"):
        with io.atomic(tmp_path / "x.json"):
            pass


def test_json_holds_numpy_scalars_and_null_for_what_is_not_finite(tmp_path):
    path = tmp_path / "a.json"
    io.write_json(path, {"acc": np.float32(0.5), "n": np.int64(3), "nan": np.nan, "é": [-np.inf, (1,)]})
    assert json.loads(path.read_text()) == {"acc": 0.5, "n": 3, "nan": None, "é": [None, [1]]}
    with pytest.raises(TypeError):
        io.write_json(path, {"path": object()})
    assert json.loads(path.read_text())["n"] == 3


def test_yaml_is_rewritten_only_if_its_content_changes(tmp_path):
    path = tmp_path / "run.yaml"
    io.write_yaml_if_changed(path, {"b": 1, "a": [1, 2]})
    os.utime(path, (1, 1))
    io.write_yaml_if_changed(path, {"b": 1, "a": [1, 2]})
    assert path.stat().st_mtime == 1
    io.write_yaml_if_changed(path, {"b": 2, "a": [1, 2]})
    assert path.stat().st_mtime > 1 and path.read_text().startswith("b: 2\n")


@pytest.mark.parametrize("name", ["weights.pt", "history.csv", "assignments.npz"])
def test_a_record_without_the_checksum_of_a_file_is_damaged(name, tmp_path):
    """A single flipped bit changes the name of the file, and the record stays valid JSON."""
    made = next((ROOT / "results" / "reference").rglob("scl/seed0/record.json")).read_bytes()
    (tmp_path / "record.json").write_bytes(made)
    assert artifacts.load(tmp_path).files.keys() >= {name}
    (tmp_path / "record.json").write_bytes(made.replace(f'"{name}"'.encode(), f'"_{name}"'.encode()))
    with pytest.raises(io.Damaged, match=f"files: must hold the checksums of .*{name}"):
        artifacts.load(tmp_path)


def test_sha256_of_more_than_one_piece(tmp_path):
    data = os.urandom(2**20 + 17)
    (tmp_path / "a").write_bytes(data)
    assert io.sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with one committed module; checkout(...) runs git in it."""
    root = tmp_path / "code"
    root.mkdir()

    def git(*arguments):
        who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
        command = ["git", "-C", root, *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True)

    git("init", "--quiet")
    (root / "scl").mkdir()
    (root / "scl" / "method.py").write_text("a = 1\n")
    git("add", "scl/method.py")
    git("commit", "--quiet", "-m", "first")
    git.root, git.head = root, git("rev-parse", "HEAD").stdout.strip()
    return git


@pytest.mark.parametrize(
    "change, dirty",
    [
        ({}, False),
        ({"results/runs/x/metrics.json": "{}", "results/a.py": "", "notes.txt": "x", "docs/a.md": ""}, False),
        ({"my_method.py": "", "mine/new_method.py": ""}, False),  # their checksums are in the runs' settings
        ({"scl/method.py": "a = 2\n"}, True),
        ({"baselines/new_method.py": "", "benchmarks/datasets/new.py": ""}, True),
        ({"Snakefile": ""}, True),
    ],
)
def test_provenance_knows_the_commit_and_whether_the_code_differs(checkout, change, dirty, monkeypatch):
    for name, text in change.items():
        path = checkout.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("GIT_DIR", "/nonexistent")  # as inside a hook of another repository
    found = provenance.provenance(checkout.root, device="cpu")
    assert (found["commit"], found["dirty"]) == (checkout.head, dirty)


def test_provenance_is_of_the_whole_project():
    """It is not limited to scl/: an edit of a baseline counts too."""
    assert provenance.ROOT == ROOT and (provenance.ROOT / "pyproject.toml").exists()


def test_provenance_is_asked_once_a_process(checkout):
    before = provenance.provenance(checkout.root, device="cpu")
    (checkout.root / "scl" / "method.py").write_text("a = 3\n")
    assert provenance.provenance(checkout.root, device="cpu") == before


def test_provenance_without_git(tmp_path, checkout, monkeypatch):
    inside = checkout.root / "unpacked"  # our tarball, unpacked in somebody else's repository
    inside.mkdir()
    assert provenance.provenance(inside, device="cpu")["commit"] == "unknown"
    bare = tmp_path / "bare"
    bare.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert provenance.provenance(bare, device="cpu")["commit"] == "unknown"
    monkeypatch.setenv("PATH", "")
    provenance._commit.cache_clear()
    found = provenance.provenance(checkout.root, device="cpu")
    assert found["commit"] == "unknown" and found["dirty"] is None


@pytest.mark.parametrize(
    "capability, flags, said",
    [
        ("AVX512", "flags\t: fpu avx512f avx512bw", "AVX512 without bf16"),
        ("AVX512", "model name\t: AMD EPYC\nflags\t\t: fpu avx512f avx512_bf16 sse", "AVX512 with bf16"),
        ("AVX512", "flags : avx512_bf16 amx_bf16 amx_tile", "AVX512 with bf16 and AMX"),
        ("AVX512", "", "AVX512"),
        ("AVX2", "flags : avx2", "AVX2"),
    ],
)
def test_provenance_tells_processors_with_bf16_apart(capability, flags, said):
    assert provenance._instructions(capability, flags) == said


def test_provenance_names_versions_device_and_threads_but_no_host(tmp_path):
    found = provenance.provenance(tmp_path, device="cpu")
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["torch"] == torch.__version__ and found["versions"]["numpy"] == np.__version__
    assert set(provenance.PACKAGES) < set(found["versions"])
    assert found["device"].startswith("CPU: ") and found["threads"] == torch.get_num_threads()
    assert f", {torch.backends.cpu.get_cpu_capability()}" in found["device"]
    assert {"scipy", "pillow"} <= {name for name, version in found["versions"].items() if version}
    assert platform.node() not in json.dumps(found)
    with contextlib.suppress(AssertionError, RuntimeError):  # a machine with a GPU states its name
        assert provenance.provenance(tmp_path, device="cuda")["device"] == torch.cuda.get_device_name()
