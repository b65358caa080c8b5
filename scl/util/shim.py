"""Import torchvision with any build of torch: `from scl.util.shim import torchvision`, also before timm.

PyPI's torchvision is built for CUDA; with a CPU build of torch, its import fails because the operators
`torchvision::nms` and `torchvision::qnms` are not defined. Nothing here uses them, so their schemas are enough.
"""

import torch

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    # Only after the failure: a working torchvision defines them itself, and a second definition is an error.
    # The name keeps the library alive: once it is collected, the operators are gone again.
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
