import numpy as np

from common.tf import tf
from dfc_tf import cluster


def test_count_labels():
    labels = tf.constant([[[0, 3, 3], [7, 0, 7]]])
    assert int(cluster.count_labels(labels, 10)) == 3


def test_winning_channel_is_the_highest():
    responses = np.array([[[[0.0, 2.0, 1.0], [5.0, -1.0, 4.0]]]], np.float32)
    assert cluster.winning_channels(responses).numpy().tolist() == [[[1, 0]]]


def test_superpixel_takes_its_majority_label():
    labels = tf.constant([[[1, 1, 2, 4], [2, 0, 2, 4]]])
    superpixels = tf.constant([[[0, 0, 1, 2], [0, 1, 1, 2]]])  # 1 1 2; 2 0 2; 4 4
    majority = cluster.majority_labels(labels, superpixels, 5)
    assert majority.numpy().tolist() == [[[1, 1, 2, 4], [1, 2, 2, 4]]]
