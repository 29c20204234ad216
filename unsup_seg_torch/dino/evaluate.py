"""Scores of DINO's features; numpy only."""

import json

from common import UserError, scoring
from common.run import Run


def evaluate(run: Run) -> tuple[dict, str]:
    """What pred.py measured with k-NN and a linear probe, for labeled images; and the protocol."""
    scores: dict = {"n": len(scoring.predictions(run)["embeddings"])}
    path = run.path / "probes.json"
    if not path.exists():
        return scores, "The images have no labels to evaluate the features with."
    try:
        report = json.loads(path.read_text())
        scores |= report["scores"]
        scores |= {
            "untrained": report["untrained"],
            "raw_pixels": report["raw_pixels"],
            "baseline": {"name": "centered pixels"} | report["centered_pixels"],
        }
        return scores, report["protocol"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: run pred.py again") from None
