"""Features are compared with pixels and an untrained network."""

import numpy as np

from common import datasets
from tests.unsup_seg_torch.dino.tiny import MODEL, colored_squares, make_config
from unsup_seg_torch.dino import config, model, probes


def test_features_are_compared_with_pixels_and_the_untrained_network():
    names = [str(i) for i in range(24)]
    dataset = datasets.Images(colored_squares(), np.arange(24) % 3, names, None, [], "")
    nets = [model.build(config.Model(**MODEL), 16).teacher.encoder.eval() for _ in range(2)]
    report = probes.compare(*nets, make_config(), dataset, None)
    assert (report["n_bank"], report["n_queries"]) == (20, 4)
    for name in ("scores", "untrained", "raw_pixels", "centered_pixels"):
        assert report[name].keys() == {"knn_10", "knn_20", "linear"}
        assert all(0 <= value <= 1 for value in report[name].values())
    assert "every fifth image" in report["protocol"]
