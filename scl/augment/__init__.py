from scl.augment.build import OPERATIONS, build, parameters_of

__all__ = ["OPERATIONS", "build", "parameters_of"]
