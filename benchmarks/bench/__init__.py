"""`scl bench`: how fast the engine is, what limits it, and how other libraries compare on the same work."""

# Peaks from the vendors' data sheets: dense TFLOP/s by precision, memory in TB/s. `scl bench --help` lists the names,
# so this file imports no torch.
DEVICES = {
    "A100": {"bf16": 312, "fp32": 19.5, "memory": 2.04},  # SXM, 80 GB
    "H100": {"bf16": 989, "fp32": 67, "memory": 3.35},  # SXM
    "H200": {"bf16": 989, "fp32": 67, "memory": 4.8},
    "L4": {"bf16": 121, "fp32": 30.3, "memory": 0.3},
}
