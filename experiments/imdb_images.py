"""Texts as images: frozen encoder features, laid out, through the first layers of an ImageNet network, classified.

python -m experiments.imdb_images
"""

from absl import flags

from experiments import bridge_job, launch

FLAGS = flags.FLAGS

bridge_job.define_flags()
flags.adopt_module_key_flags(bridge_job)
flags.DEFINE_string("backbone", "efficientnet_lite0", "The extractor; --backbone=? lists them.")
flags.DEFINE_bool("probes", True, "Also simple classifiers on features, pixel means and maps.")


def main() -> None:
    """Every stage, the result, the pictures."""
    from experiments import bridge_pictures, plots
    from vision_bridge.table import ROWS

    bridge_job.check([FLAGS.backbone])
    path = launch.run_dir(f"imdb_images-{FLAGS.dataset}")
    if not FLAGS.dry_run and launch.finished(path, "test_accuracy"):
        return
    placement, row = launch.prepare_devices(), ROWS[FLAGS.backbone]
    prepared = bridge_job.prepare(placement)
    if FLAGS.dry_run:
        bridge_job.dry_run(prepared, placement, [row])
        return
    chosen = bridge_job.choices()
    bridge_job.check_features(prepared, chosen)
    extractor, weights = bridge_job.load_extractor(placement, chosen, row, FLAGS.weights)
    run = launch.open_data_run(path, prepared[0])
    bridge = bridge_job.build(prepared, placement, chosen, FLAGS.shuffle_pixels)
    run.say(bridge_job.summary(bridge))
    extraction = bridge_job.extract(bridge, extractor, weights)
    if extraction.weights == "random":
        run.say("note: the extractor's weights are random")
    bridge.pixel_map.save(path / "layout.safetensors")
    bridge_pictures.draw(run, bridge, extraction)
    probes = bridge_job.probes(bridge, extraction, FLAGS.seed) if FLAGS.probes else {}
    result, head = bridge_job.train(run, bridge, extraction, row, FLAGS.seed)
    plots.training_curves(run.path / "metrics.jsonl", run.path / "curves.png")
    bridge_pictures.draw_activation(run, bridge, extraction, head)
    run.write_json("result.json", result | probes)
    run.say(
        f"test accuracy {result['test_accuracy']:.4f} ({result['test_accuracy_low']:.4f} to "
        f"{result['test_accuracy_high']:.4f} for {len(bridge.labels('test')):,} rows)"
        + "".join(f"\n{name.removeprefix('probe_').replace('_', ' ')}: {value:.4f}" for name, value in probes.items())
        + f"\neverything is in {run.path}"
    )


if __name__ == "__main__":
    launch.launch(main)
