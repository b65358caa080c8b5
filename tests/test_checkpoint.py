"""A run killed at any moment, or with a damaged checkpoint, resumes from the last good state."""

import contextlib
import errno
import hashlib
import io
import os
import random
import signal
import time

import numpy as np
import pytest
import torch

from scl.engine import checkpoint


def state_at(step, fingerprint="run A"):
    return {"fingerprint": fingerprint, "step": step, "weights": torch.arange(5000.0) + step}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pt"


@pytest.fixture
def two(path):
    """A checkpoint of step 2, with that of step 1 as the previous one."""
    checkpoint.save(path, state_at(1))
    checkpoint.save(path, state_at(2))
    return path


def test_what_training_needs_comes_back_as_it_was(path):
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "fingerprint": "run A",
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "torch": torch.Generator().get_state(),
        "numpy": np.random.default_rng(3).bit_generator.state,
        "python": random.getstate(),
        "losses": [0.5, float("inf")],
        "none": None,
        "bytes": b"\0",
    }
    checkpoint.save(path, state)
    loaded = checkpoint.load(path, fingerprint="run A")
    torch.testing.assert_close(loaded["network"], dict(network.state_dict()), rtol=0, atol=0)
    momentum = optimizer.state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(loaded["optimizer"]["state"][0]["momentum_buffer"], momentum)
    assert torch.equal(loaded["torch"], state["torch"])
    for name in ("numpy", "python", "losses", "none", "bytes"):
        assert loaded[name] == state[name]


def test_the_newest_is_loaded_and_the_one_before_is_kept(two):
    checkpoint.save(two, state_at(3))
    said = []
    assert checkpoint.load(two, fingerprint="run A", report=said.append)["step"] == 3
    assert said == []
    assert sorted(p.name for p in two.parent.iterdir()) == ["checkpoint.prev.pt", "checkpoint.pt"]
    two.unlink()
    assert checkpoint.load(two, fingerprint="run A", report=said.append)["step"] == 2
    assert "previous checkpoint" in said[0]


def test_none_without_a_checkpoint(path):
    said = []
    assert checkpoint.load(path, fingerprint="run A", report=said.append) is None
    assert said == []


def flip(position):
    def damage(data):
        data = bytearray(data)
        data[int(position * (len(data) - 1))] ^= 1
        return bytes(data)

    return damage


DAMAGES = {
    "first bit": flip(0),
    "in the checksum": lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
    "in the tensor": flip(0.5),
    "last bit": flip(1),
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "empty": lambda data: b"",
    "header only": lambda data: data[: data.index(b"\n") + 1],
    "zeros": lambda data: bytes(len(data)),
    "not a number": lambda data: b"scl-checkpoint-1 \xff \xff\n" + data,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_previous_used(two, damage):
    damaged = damage(two.read_bytes())
    two.write_bytes(damaged)
    said = []
    loaded = checkpoint.load(two, fingerprint="run A", report=said.append)
    assert loaded["step"] == 1 and torch.equal(loaded["weights"], state_at(1)["weights"])
    assert "damaged" in said[0] and str(two) in said[0]
    assert (two.parent / "checkpoint.pt.damaged").read_bytes() == damaged and not two.exists()
    checkpoint.save(two, state_at(3))  # resuming does not lose the previous good one
    two.write_bytes(b"")
    assert checkpoint.load(two, fingerprint="run A", report=said.append)["step"] == 1


def test_both_damaged_starts_from_the_beginning_and_says_so(two):
    two.write_bytes(b"")
    checkpoint.previous(two).write_bytes(b"x")
    said = []
    assert checkpoint.load(two, fingerprint="run A", report=said.append) is None
    assert len(said) == 3 and "from the beginning" in said[-1]
    assert len(list(two.parent.glob("*.damaged"))) == 2


def test_another_fingerprint_is_ignored_left_alone_and_said(two):
    said = []
    assert checkpoint.load(two, fingerprint="run B", report=said.append) is None
    assert "another configuration" in said[0] and "from the beginning" in said[-1]
    assert checkpoint.load(two, fingerprint="run A")["step"] == 2


def test_a_previous_checkpoint_with_the_fingerprint_is_found_behind_another(two):
    checkpoint.save(two, state_at(9, fingerprint="run B"))
    assert checkpoint.load(two, fingerprint="run A", report=lambda line: None)["step"] == 2


def test_a_full_disk_leaves_the_checkpoints_and_once_there_is_room_it_goes_on(two, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="checkpoint.pt: No space left"):
            checkpoint.save(two, state_at(3))
    assert sorted(p.name for p in two.parent.iterdir()) == ["checkpoint.prev.pt", "checkpoint.pt"]
    assert checkpoint.load(two, fingerprint="run A")["step"] == 2
    checkpoint.save(two, state_at(3))
    assert checkpoint.load(two, fingerprint="run A")["step"] == 3


@pytest.mark.parametrize(
    "value, kind", [(np.float64(1), "numpy"), (np.zeros(2), "numpy.ndarray"), ({(1, object()): 1}, "builtins.object")]
)
def test_what_could_not_be_loaded_is_refused_at_saving(path, value, kind):
    with pytest.raises(TypeError, match=f"a checkpoint holds tensors, .* only, not .*{kind}"):
        checkpoint.save(path, {"fingerprint": "run A", "history": [1.0, value]})
    assert not path.exists()


def test_a_checkpoint_cannot_run_code(path):
    """A malicious file with a correct checksum."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(path.parent / "exploded"),)

    buffer = io.BytesIO()
    torch.save({"fingerprint": "run A", "bomb": Bomb()}, buffer)
    payload = buffer.getvalue()
    header = f"scl-checkpoint-1 {hashlib.sha256(payload).hexdigest()} {len(payload)}\n"
    path.write_bytes(header.encode() + payload)
    assert checkpoint.load(path, fingerprint="run A", report=lambda line: None) is None
    assert not (path.parent / "exploded").exists()


def test_kill_9_at_random_moments_loses_at_most_the_checkpoint_in_the_making(path):
    delay = random.Random(0)
    for _ in range(10):
        begin = checkpoint.load(path, fingerprint="run A", report=lambda line: None)
        first = begin["step"] + 1 if begin else 1
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                for step in range(first, first + 10_000):
                    checkpoint.save(path, state_at(step))
                    os.write(writer, b".")
            os._exit(1)
        os.close(writer)
        saved = len(os.read(reader, 1))
        time.sleep(delay.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while piece := os.read(reader, 4096):
            saved += len(piece)
        os.close(reader)
        loaded = checkpoint.load(path, fingerprint="run A", report=lambda line: None)
        assert saved and loaded["step"] in (first + saved - 1, first + saved)
        assert torch.equal(loaded["weights"], state_at(loaded["step"])["weights"])
        assert not list(path.parent.glob("*.damaged"))


@pytest.fixture
def heard():
    """Set signal handlers as under a terminal, even if the tests were started by nohup or with '&'."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_sets_a_flag_and_the_handler_before_is_put_back(number, status):
    before = signal.getsignal(number)
    with checkpoint.Stop() as stop:
        assert not stop.requested and stop.status is None
        os.kill(os.getpid(), number)
        assert stop.requested and stop.status == status
        os.kill(os.getpid(), signal.SIGTERM)  # schedulers send it more than once
        assert stop.status == status
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("heard")
def test_the_second_ctrl_c_stops_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), checkpoint.Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(number):
    """`cmd &` in a script starts cmd with SIGINT ignored, nohup with SIGHUP ignored, and both must stay so."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with checkpoint.Stop() as stop:
            os.kill(os.getpid(), number)
            assert not stop.requested
    finally:
        signal.signal(number, before)
