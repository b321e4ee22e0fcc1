import numpy as np

from exporters.training.train import augment


def test_an_image_moves_by_at_most_an_eighth_and_keeps_its_content():
    rng = np.random.default_rng(0)
    images = np.zeros((500, 16, 16, 1), np.float32)
    images[:, 8, 8] = 1
    shifted = augment(images, rng, flips=False)
    assert shifted.shape == images.shape
    _, rows, columns, _ = np.nonzero(shifted)
    assert len(rows) == 500
    assert set(rows) == set(columns) == {6, 7, 8, 9, 10}


def test_flips_mirror_about_half_of_the_images_and_only_if_asked():
    images = np.zeros((1000, 16, 16, 1), np.float32)
    images[:, 8, 1] = 1  # left edge; a shift of 2 cannot bring it to the right half
    mirrored = augment(images, np.random.default_rng(0), flips=True)[:, :, 8:].any(axis=(1, 2, 3))
    assert 400 < mirrored.sum() < 600
    plain = augment(images, np.random.default_rng(0), flips=False)[:, :, 8:].any(axis=(1, 2, 3))
    assert not plain.any()


def test_features_stay_where_they_are():
    rows = np.random.default_rng(1).random((20, 1, 30, 1)).astype(np.float32)
    assert np.array_equal(augment(rows, np.random.default_rng(5), flips=True), rows)


def test_augmentation_follows_its_generator_and_leaves_its_input():
    images = np.random.default_rng(1).random((20, 8, 8, 3)).astype(np.float32)
    before = images.copy()
    first, again = (augment(images, np.random.default_rng(5), flips=True) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(images, before)


def test_images_with_their_channels_first_move_as_those_with_them_last():
    rng = np.random.default_rng(2)
    for channels in (1, 3):
        last = rng.random((50, 16, 12, channels)).astype(np.float32)
        moved, first = (
            augment(images, np.random.default_rng(5), flips=True)
            for images in (last, last.transpose(0, 3, 1, 2))
        )
        assert np.array_equal(first.transpose(0, 2, 3, 1), moved)
        assert not np.array_equal(moved, last)
