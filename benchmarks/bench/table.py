"""Results of `scl bench` as text."""

LABELS = {
    "augment": "(a) augmentation alone",
    "learn": "(b) forward, backward, optimizer alone",
    "step": "(c) the training loop",
    "standard": "(d) standard pipeline, fp32, NCHW",
    "tuned": "(e) standard pipeline, tuned",
    "lightly": "lightly's SimCLR step, fp32, NCHW",
    "lightly_tuned": "lightly's SimCLR step, our precision, channels_last",
    "torchvision_v2": "torchvision v2, image by image, one CPU process",
    "kornia": "kornia, the batch at once",
}


def measured(result: dict) -> str:
    ratios = result["ratios"]
    once = ", ".join(
        f"{name.removesuffix('_seconds').replace('_', ' ')} {s:.2f} s" for name, s in result["once"].items()
    )
    swept = ", ".join(f"{n}: {speed:.1f}" for n, speed in result["sweep"].items())
    return "\n".join(
        [
            *_head(result),
            f"views: {', '.join(result['views'])}; {result['threads']} threads, machine load "
            f"{result['load_before']:.1f} to {result['load_after']:.1f}; {result['rounds']} rounds",
            f"  {'':52}   images/s     s/step  TFLOP/s  of peak",
            *(_row(LABELS[name], row) for name, row in (result["parts"] | result["peers"]).items()),
            f"peak of the device: {result['peak_tflops_per_second']:.3f} TFLOP/s (matrix product, side "
            f"{result['matrix']}, {result['precision']})",
            f"goodput c/b {_ratio(ratios['goodput'])}",
            f"gain c/d {_ratio(ratios['gain_standard'])}, most of it by the precision where ours is bf16",
            f"gain c/e {_ratio(ratios['gain_tuned'])}",
            f"loader processes of d and e: {result['loader_processes']} (images/s of e by number, before: {swept})",
            f"once a run: {once}; peak memory {result['peak_memory_bytes'] / 1e6:.0f} MB",
            "  images (N)  clusters (K)  batch   images/s     s/step   relative",
            *(
                f"  {row['images']:10}  {row['clusters']:12}  {row['batch_size']:5}  {row['images_per_second']:9.1f}"
                f"  {row['seconds_per_step']:9.4f}   {_ratio(row['relative'])}"
                for row in result["growth"]
            ),
        ]
    )


def counted(result: dict) -> str:
    count, time = result["count"], result["time"]
    on_gpu = count["kernels"] is not None
    kernels = f"{count['kernels']} kernels, {count['launches']} launches" if on_gpu else "no GPU, so no kernels"
    lines = [
        *_head(result),
        f"one step: {count['flops'] / 1e9:.3f} GFLOP, {count['bytes'] / 1e9:.3f} GB if nothing is cached or fused, "
        f"{count['operators']} operators; {kernels}",
        f"profiled: {time['seconds']:.4f} s{', of which kernels:' if on_gpu else ''}",
        f"  {'':16}   seconds   of step  convolutions and matrix products",
        *(
            f"  {scope:16} {row['seconds']:9.4f}  {row['seconds'] / time['seconds']:8.2%}  {row['products']:9.4f}"
            for scope, row in time["scopes"].items()
        ),
        "longest others: " + ", ".join(f"{name} {s / time['seconds']:.2%}" for name, s in time["others"].items()),
        "memory in MB: " + ", ".join(f"{name} {size / 1e6:.0f}" for name, size in result["memory"].items()),
    ]
    for precision, bound in result["bounds"].items():
        parts = ", ".join(f"{name} {1e3 * s:.3f} ms" for name, s in bound["seconds"].items())
        speed = result["batch_size"] / bound["bound_seconds"]
        lines.append(
            f"bound on {result['bound_on']} in {precision}: {speed:,.0f} images/s "
            f"by {bound['limit']} ({parts}; peaks of the data sheet, 5 µs per launch assumed)"
        )
    return "\n".join(lines)


def _head(result: dict) -> list[str]:
    changed = " with uncommitted changes" if result["dirty"] else ""
    compiled = ", compiled" if result.get("compile") else ""
    settings, usual = result.get("benchmark"), result.get("benchmark_size", result["size"])
    settings = f"; settings of {settings}" if settings else ""
    if usual != result["size"]:
        settings += f", which has {usual} px: views of a fixed size keep it"
    return [
        f"{result['method']}, {result['size']} px, batch {result['batch_size']}, {result['precision']}{compiled}; "
        f"{result['device']}",
        f"commit {result['commit'][:12]}{changed}; torch {result['versions']['torch']}{settings}",
    ]


def _row(label: str, row: dict) -> str:
    if "problem" in row:  # of a peer
        return f"  {label:52} {row['problem']}"
    line = f"  {label:52} {row['images_per_second']:10.1f}  {row['seconds_per_step']:9.4f}"
    if row["share_of_peak"]:
        line += f"  {row['tflops_per_second']:7.3f}  {row['share_of_peak']:6.1%}"
    return f"{line}  ours / this {_ratio(row['gain'])}" if "gain" in row else line


def _ratio(ratio: dict) -> str:
    interval = "" if ratio["low"] is None else f" [{ratio['low']:.3f}, {ratio['high']:.3f}]"
    return f"{ratio['median']:.3f}{interval}"
