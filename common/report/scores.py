"""The scores of a report: one sentence, tiles of the most important ones, a table of all."""

from typing import NamedTuple

from common.report import formatting

# in the order of the tiles; the index has a column for each
KEY_SCORES = (
    "acc", "recall_at_1", "map_at_r", "nmi", "ari", "miou", "pixel_accuracy", "mean_accuracy",
    "covering_ods", "pri_ods", "vi_ods", "f_ods", "mean", "all", "fine", "coarse",
    "knn_20", "knn_10", "knn", "linear",
)  # fmt: skip
MAX_TILES = 4
REFERENCES = ("baseline", "published", "untrained")  # a tile compares with these
DEVIATIONS = ("_sd", "_std", "_deviation")
SENTENCES = {
    "acc": "{:.1%} of {} are in the cluster matched to their class",
    "recall_at_1": "{:.1%} of {} have a nearest neighbor of their own class",
    "knn_20": "{:.1%} of the query images are classified correctly by their 20 nearest neighbors",
}


class Score(NamedTuple):
    name: str
    value: float
    text: str  # with deviation and unit


def read(scores: dict) -> dict[str, Score]:
    """Every number of a parsed scores.json by its key, {"iou": {"sky": 0.9}} as "iou/sky".

    Deviations belong to the score they are of; for dictionaries of references see `columns`.
    """
    numbers = {}
    for key, value in scores.items():
        if formatting.is_number(value) and not _is_deviation(key, scores):
            text = formatting.format_score(key, value, _deviation(key, scores))
            numbers[key] = Score(formatting.display_name(key), value, text)
        elif isinstance(value, dict) and not _is_column(key, scores):
            heading = formatting.display_name(key)
            for inner, score in read(value).items():
                numbers[f"{key}/{inner}"] = score._replace(name=f"{heading}: {inner}")
    return numbers


def _deviation(key: str, scores: dict) -> float | None:
    values = (scores.get(key + suffix) for suffix in DEVIATIONS)
    return next((value for value in values if formatting.is_number(value)), None)


def _is_deviation(key: str, scores: dict) -> bool:
    return any(key.endswith(end) and key.removesuffix(end) in scores for end in DEVIATIONS)


def _is_column(key: str, scores: dict) -> bool:
    """Whether a dictionary is a reference or has scores of this run under other conditions."""
    return key in REFERENCES or not scores[key].keys().isdisjoint(scores)


def columns(scores: dict) -> dict[str, tuple[str, dict[str, Score]]]:
    """Heading and scores of each column: this run (key "") first, then its comparisons."""
    compared = {"": ("this run", read(scores))}
    for key, value in scores.items():
        if isinstance(value, dict) and _is_column(key, scores):
            heading = value.get("name") or formatting.sentence_case(key).lower()
            compared[key] = str(heading), read(value)
    return compared


def key_scores(scores: dict[str, Score]) -> dict[str, Score]:
    """The most important scores of a run; the first ones if it has none of KEY_SCORES."""
    keys = [key for key in KEY_SCORES if key in scores] or [key for key in scores if key != "n"]
    return {key: scores[key] for key in keys[:MAX_TILES]}


def tiles(scores: dict) -> list[dict]:
    """One per key score: {"name", "values": [(heading, Score)], "has_bars"}, ours first.

    Bars compare two values or more, all within 0 to 1.
    """
    compared = columns(scores)
    shown = [compared[key] for key in ("", *REFERENCES) if key in compared]
    tiles = []
    for key, score in key_scores(shown[0][1]).items():
        values = [(heading, column[key]) for heading, column in shown if key in column]
        has_bars = len(values) > 1 and all(0 <= each.value <= 1 for _, each in values)
        tiles.append({"name": score.name, "values": values, "has_bars": has_bars})
    return tiles


def table(scores: dict) -> dict:
    """All scores: {"headings", "rows": [(name, [Score or None per heading])]}."""
    headings, values = zip(*columns(scores).values(), strict=True)
    rows = [
        (score.name, [column.get(key) for column in values]) for key, score in values[0].items()
    ]
    return {"headings": headings, "rows": rows}


def sentence(scores: dict, n_clustered: int, n_clusters: int) -> str:
    """The result: the first key score beside its references, else whatever is known.

    n_clustered: images in n_clusters clusters; 0 for a task without clusters.
    """
    compared = columns(scores)
    ours = compared[""][1]
    key = next((key for key in KEY_SCORES if key in ours), None)
    references = [compared[name] for name in REFERENCES if key and name in compared]
    references = [(heading, column[key]) for heading, column in references if key in column]
    images = f"{ours['n'].text} image{'s' * (ours['n'].value != 1)}" if "n" in ours else ""
    if key in SENTENCES:
        text = SENTENCES[key].format(ours[key].value, images or "the images")
        return text + "".join(f"; {name}: {each.value:.1%}" for name, each in references) + "."
    if n_clustered and not key:
        return f"{n_clustered:,} images in {n_clusters:,} clusters."
    if not ours:
        return "No scores yet."
    shown = [ours[key]] if key else key_scores(ours).values()
    text = ", ".join(f"{score.name} {score.text}" for score in shown) + (images and f" on {images}")
    return text + "".join(f"; {name}: {each.text}" for name, each in references) + "."
