"""A fake GPU for machines without one: its tensors report "cuda", keep their values on the CPU, and refuse what CUDA
refuses.

Whole runs can thus execute the code paths for GPUs. Operands on two devices, a generator of the other device, and
numpy() raise; after `torch.cuda.set_sync_debug_mode("error")`, so does everything that waits for the device. In torch's
C++ code the tensors are on the meta device: without CUDA, autograd aborts on tensors of "cuda", even those of
FakeTensorMode. CUDA's kernels, rounding, and speed are not imitated.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo  # imported by optimizers; its import fails while torch is patched
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from scl.augment import randaugment

aten = torch.ops.aten
GPU, META, CPU = torch.device("cuda", 0), torch.device("meta"), torch.device("cpu")
COPIES = (aten._to_copy, aten.copy_)
INDEXING = (aten.index, aten.index_put, aten.index_put_)
WITH_A_NUMBER = (aten.fill, aten.fill_, aten.masked_fill, aten.masked_fill_)  # a number may be on the CPU
FUSED = (aten._fused_sgd_, aten._fused_adam_)
COUNTS = (  # operators whose result is a Python number, or has a shape that depends on values
    *(aten._local_scalar_dense, aten.equal, aten.nonzero, aten.masked_select, aten.bincount, aten.repeat_interleave),
    *(aten._unique, aten._unique2, aten.unique_dim, aten.unique_consecutive),
)
PRODUCTS = (  # what autocast computes in half precision
    *(torch.conv2d, torch.nn.functional.linear, torch.mm, torch.bmm, torch.addmm, torch.matmul),
    *(torch.Tensor.mm, torch.Tensor.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__),
)


class Waits(Exception):
    """The CPU would wait here for the GPU."""


class GpuTensor(torch.Tensor):
    """A tensor of the fake GPU; `value` is the same on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device, is_cuda, is_meta = property(lambda self: GPU), property(lambda self: True), property(lambda self: False)

    @staticmethod
    def __new__(cls, value: torch.Tensor):
        layout = {"strides": value.stride(), "storage_offset": value.storage_offset()}
        return cls._make_wrapper_subclass(cls, value.shape, **layout, dtype=value.dtype, device=META)

    def __init__(self, value: torch.Tensor):
        self.value = value

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func}: used outside `with fake_gpu()`")

    def __reduce_ex__(self, protocol):
        return self.value.__reduce_ex__(protocol)  # our files are loaded to the CPU, whichever device wrote them

    def __repr__(self):
        return f"GpuTensor({self.value})"

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy


class Generator(torch.Generator):
    """A generator that reports its device; all numbers come from the CPU."""

    device: Any = None

    def __new__(cls, device: Any = "cpu"):
        made = super().__new__(cls)
        made.device = GPU if _is_gpu(device) else CPU
        return made


class _Functions(TorchFunctionMode):
    """Handles what C++ must not see or does not report: device names, generators, autocast (`half`: its dtype)."""

    half: torch.dtype | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        if func is torch.Tensor.cuda:
            return args[0].to(META)
        args, kwargs = tree_map(lambda x: META if _is_gpu(x) else x, (args, kwargs))
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == META:
            return func(*args, **kwargs | {"device": CPU}).to(META)
        if self.half and func in PRODUCTS:
            args = tree_map(
                lambda x: x.to(self.half) if isinstance(x, GpuTensor) and x.is_floating_point() else x, args
            )
        result, generator = func(*args, **kwargs), kwargs.get("generator")
        if generator is not None and torch.is_tensor(result) and generator.device.type != result.device.type:
            raise RuntimeError(f"Expected a generator of {result.device.type}, but found {generator.device.type}")
        return result

    @contextlib.contextmanager
    def autocast(self, dtype: torch.dtype | None, enabled: bool) -> Iterator[None]:
        before, self.half = self.half, (dtype or torch.float16) if enabled else None
        try:
            yield
        finally:
            self.half = before


class _Operators(TorchDispatchMode):
    """Performs the operators of CUDA on the values."""

    waiting_is_an_error = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        own = {id(x.value): x for x in tensors if isinstance(x, GpuTensor)}  # in place: the result is an operand
        _refuse_as_cuda_does(func, args, tensors)
        if func.overloadpacket is aten.copy_:
            on_gpu = isinstance(args[0], GpuTensor)
        else:
            on_gpu = kwargs["device"] == META if kwargs.get("device") else bool(own)
        if self.waiting_is_an_error and (own or on_gpu) and _waits(func, args, kwargs, on_gpu):
            raise Waits(func)
        values, options = tree_map(_value, (args, kwargs))
        result = func(*values, **options)
        if not on_gpu:
            return result
        return tree_map(lambda x: own.get(id(x), GpuTensor(x)) if isinstance(x, torch.Tensor) else x, result)


def _is_gpu(x: Any) -> bool:
    return (isinstance(x, str) and x.startswith("cuda")) or (isinstance(x, torch.device) and x.type == "cuda")


def _value(x: Any) -> Any:
    if isinstance(x, torch.device):
        return CPU
    return x.value if isinstance(x, GpuTensor) else x


def _refuse_as_cuda_does(func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
    """Raise RuntimeError for operands on two devices, and for a fused optimizer if the strides of gradients differ."""
    packet, cpu = func.overloadpacket, [x for x in tensors if not isinstance(x, GpuTensor)]
    if packet in INDEXING and isinstance(args[0], GpuTensor):  # indices may be on either device
        cpu = [x for x in args[2:3] if not isinstance(x, GpuTensor)]
    number = packet in (*INDEXING, *WITH_A_NUMBER) or torch.Tag.pointwise in func.tags
    wrong = [x for x in cpu if x.dim() or not number]
    if wrong and len(cpu) < len(tensors) and packet not in COPIES:
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found cuda:0 and cpu")
    if packet in FUSED and any(_strides(p) != _strides(gradient) for p, gradient in zip(args[0], args[1])):
        raise RuntimeError(f"{func}: params and grads must have same dtype, device, and layout")


def _strides(x: torch.Tensor) -> list[int]:
    return [stride for length, stride in zip(x.shape, x.stride()) if length > 1]


def _waits(func: Any, args: Any, kwargs: Any, on_gpu: bool) -> bool:
    """Whether this operator makes the CPU wait for the GPU."""
    packet = func.overloadpacket
    if packet in COPIES:
        source = args[1] if packet is aten.copy_ else args[0]
        at_once = kwargs.get("non_blocking") or (packet is aten.copy_ and args[2:3] == (True,))
        number = packet is aten.copy_ and not source.dim()  # becomes an argument of a kernel
        return isinstance(source, GpuTensor) != on_gpu and not at_once and not number
    if packet in INDEXING:  # a mask's true elements are looked up, except to set them to one number
        indices = [x for x in args[1] if x is not None]
        masked = any(x.dtype == torch.bool for x in indices) and not (len(args) > 2 and args[2].numel() == 1)
        return masked or any(not isinstance(x, GpuTensor) for x in indices)
    return packet in COUNTS


@contextlib.contextmanager
def fake_gpu() -> Iterator[None]:
    """A context in which torch has one GPU."""
    operators, functions, usual = _Operators(), _Functions(), torch.autocast

    def autocast(device_type, dtype=None, enabled=True, **others):
        return (
            functions.autocast(dtype, enabled)
            if device_type == "cuda"
            else usual(device_type, dtype, enabled, **others)
        )

    def set_sync_debug_mode(mode):
        operators.waiting_is_an_error = mode == "error"

    of_cuda = {
        **dict.fromkeys(("manual_seed", "synchronize", "reset_peak_memory_stats"), lambda *_: None),
        **dict.fromkeys(("max_memory_allocated", "memory_allocated", "device_count"), lambda *_: 1),
        "is_available": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "get_device_name": lambda *_: "fake GPU",
        "get_device_capability": lambda *_: (9, 0),
        "set_sync_debug_mode": set_sync_debug_mode,
    }
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        randaugment._ranges.cache_clear()  # its tables may be on a real GPU
        stack.callback(randaugment._ranges.cache_clear)
        stack.enter_context(patch.multiple(torch.cuda, **of_cuda))
        stack.enter_context(patch.multiple(torch, autocast=autocast, Generator=Generator))
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # as wrapper subclasses of tensors need
        stack.enter_context(operators)
        stack.enter_context(functions)
        yield


@contextlib.contextmanager
def waiting(mode: str) -> Iterator[None]:
    """A context in which waiting for the GPU is an "error" or allowed ("default")."""
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
