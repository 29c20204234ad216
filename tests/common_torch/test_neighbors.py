import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from common import UserError
from common.pytorch import neighbors

ROOT = Path(__file__).resolve().parents[2]


def random(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def slow_nearest(queries, keys, k):
    """In float64, one query at a time."""
    ids = [((keys - query) ** 2).sum(1).argsort()[:k] for query in queries.double().numpy()]
    return torch.from_numpy(np.stack(ids))


@pytest.mark.parametrize("n_threads", [1, 2])
def test_nearest_equals_a_slow_search_for_any_number_of_threads(n_threads):
    queries, keys = random(1500, 20), random(70, 20, seed=1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n_threads)
        ids = neighbors.nearest(queries, keys, 3)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(ids, slow_nearest(queries, keys.double().numpy(), 3))


def test_nearest_accepts_tensors_that_are_not_contiguous():
    queries, keys = random(9, 40).T, random(9, 5, seed=1).T
    expected = slow_nearest(queries, keys.double().numpy(), 2)
    assert torch.equal(neighbors.nearest(queries, keys, 2), expected)


def test_nearest_others_exclude_the_point_among_duplicates():
    points = random(40, 6).repeat(5, 1)  # more duplicates than neighbors
    ids = neighbors.nearest_others(points, 3)
    numbers = torch.arange(200)[:, None]
    assert ids.shape == (200, 3) and (ids != numbers).all()
    assert (ids % 40 == numbers % 40).all()
    assert all(len(row.unique()) == 3 for row in ids)


def test_overflowing_distances_are_refused():
    with pytest.raises(UserError, match="overflow float32"):
        neighbors.nearest(torch.full((3, 2), 1e30), torch.zeros(2, 2))


def test_faiss_serves_large_problems_on_cpus_only():
    assert neighbors.faiss_finds_nearest(torch.empty(1024, 2))
    assert not neighbors.faiss_finds_nearest(torch.empty(1023, 2))
    assert not neighbors.faiss_finds_nearest(torch.empty(1024, 2, device="meta"))
    assert neighbors.faiss_finds_others(torch.empty(4096, 64), 100)
    for n, d, k in ((4095, 64, 100), (4096, 63, 100), (4096, 64, 101)):
        assert not neighbors.faiss_finds_others(torch.empty(n, d), k)


def test_faiss_and_torch_share_a_process_in_either_order():
    check = (
        "from common.pytorch import neighbors\n"
        "points = torch.randn(3000, 30)\n"
        "ids = neighbors.nearest_others(points, 1)[:, 0]\n"
        "table = torch.cdist(points, points).fill_diagonal_(torch.inf)\n"
        "assert torch.equal(ids, table.argmin(1))\n"
    )
    for imports in ("import faiss, torch\n", "import torch\nassert 'faiss' not in sys.modules\n"):
        command = [sys.executable, "-c", f"import sys\n{imports}{check}"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_nearest_on_a_gpu_equals_that_on_the_cpu():
    queries, keys = random(3000, 20), random(70, 20, seed=1)
    expected = neighbors.nearest(queries, keys, 3)
    assert torch.equal(neighbors.nearest(queries.cuda(), keys.cuda(), 3).cpu(), expected)
