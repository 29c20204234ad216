import numpy as np
import tensorflow as tf

from dfc_tf import cluster


def test_labels_are_counted():
    labels = tf.constant([[[0, 3, 3], [7, 0, 7]]])
    assert int(cluster.count(labels, 10)) == 3


def test_the_winner_is_the_highest_channel():
    responses = np.array([[[[0.0, 2.0, 1.0], [5.0, -1.0, 4.0]]]], np.float32)
    assert cluster.winners(responses).numpy().tolist() == [[[1, 0]]]


def test_a_superpixel_has_the_label_of_most_of_its_pixels():
    labels = tf.constant([[[1, 1, 2, 4], [2, 0, 2, 4]]])
    superpixels = tf.constant([[[0, 0, 1, 2], [0, 1, 1, 2]]])  # 1 1 2; 2 0 2; 4 4
    found = cluster.majorities(labels, superpixels, 5)
    assert found.numpy().tolist() == [[[1, 1, 2, 4], [1, 2, 2, 4]]]
