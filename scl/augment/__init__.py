from scl.augment.build import OPERATIONS, build

__all__ = ["OPERATIONS", "build"]
