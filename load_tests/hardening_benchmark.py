"""What each hardened mode costs and stops: ``python -m load_tests.hardening_benchmark``.

A victim and a shadow of it are trained on digits; the victim's answers to the adversary's third
are protected in each mode, here in this process, and then attacked: by a substitute trained on
them as they are, by reading the order of the tail, and by recovery from a lookup table with beta
and gamma known, from single answers and from the mean of answers to near-duplicates.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from exporters import architectures, datasets
from exporters.datasets import Images
from exporters.model_repository import SHIPPED
from exporters.quiet_import import import_quietly
from exporters.train import augment, one_hot, predict, train
from load_tests import measures
from load_tests.endpoint import Scores
from load_tests.stealing.recovery.table import recover
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.transfer_set import TransferSet
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

#: What is set beside the shipped beta, gamma and margin.
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "decimals 3": {"decimals": 3},
    "decimals 2": {"decimals": 2},
    "key_file": {"key_file": "key"},
    "key_file, jitter 0.5": {"key_file": "key", "jitter": 0.5},
    "decoy 1": {"key_file": "key", "decoy": 1},
    "decoy 10": {"key_file": "key", "decoy": 10},
    "key_file, decimals 3": {"key_file": "key", "decimals": 3},
}
KEY = b"a secret of the operator's"
COPIES = 32  #: near-duplicates of a query that the adversary averages over
PIXEL_NOISE = 0.02  #: standard deviation of the noise that makes them, of pixels in [0, 1]
AUGMENTATIONS = 20  #: rows of the lookup table for each of the adversary's images


def main() -> int:
    """Run the benchmark; the table goes to stdout, progress to stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600, help="training batches of 64")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    options = parser.parse_args()
    report = run(seed=options.seed, steps=options.steps)
    print("| mode | stolen | stolen, recovered | 32 averaged | tail read | cosine | step time |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for mode, row in report["modes"].items():
        print(
            f"| {mode} | {row['stolen']:.3f} | {row['stolen_recovered']:.3f} "
            f"| {row['stolen_recovered_averaged']:.3f} | {row['tail_pairs_read']:.2f} "
            f"| {row['cosine']:.3f} | {row['step_time_ratio']:.1f} |"
        )
    print(f"labels only: {report['stolen_labels_only']:.3f}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def run(*, seed: int, steps: int) -> dict[str, Any]:
    """Return the measures of every mode.

    Args:
        seed: of the hold-off, the networks, the near-duplicates and the augmentation.
        steps: training batches of 64, for the victim, the shadow and each substitute.
    """
    import_quietly("keras", "tensorflow")
    rng = np.random.default_rng(seed)
    data = datasets.load("digits")
    held_off = datasets.hold_off(data, seed=seed)
    images = held_off.adversary_images
    _tell("train the victim")
    victim = _train(held_off.victim_images, held_off.victim_labels, steps=steps, seed=seed)
    reference = softmax(predict(victim, data.x_test), axis=1)
    logits = predict(victim, images)
    copies = [
        predict(victim, images + rng.normal(0, PIXEL_NOISE, images.shape).astype(np.float32))
        for _ in range(COPIES)
    ]
    _tell("train the shadow, on labels")
    shadow = _train(images, logits.argmax(axis=1), steps=steps, seed=seed + 1)
    moved = np.concatenate([augment(images, rng, flips=False) for _ in range(AUGMENTATIONS)])
    prior = softmax(predict(shadow, np.concatenate([images, moved])), axis=1)

    def stolen(answers: Scores) -> float:
        recipe = Recipe(steps=steps, seed=seed + 2)
        substitute = train_substitute(TransferSet(images, answers), recipe)
        return measures.agreement(predict(substitute, data.x_test), reference)

    modes = {}
    for mode, changes in MODES.items():
        _tell(mode)
        defence = _defence(**changes)
        # The adversary knows every parameter, and has no key: theirs is another.
        copy = _defence(key=b"a guess of the adversary's", **{**changes, "scores": "probabilities"})
        answers = defence(logits)
        averaged = np.mean([defence(near) for near in copies], axis=0)
        true_averaged = np.mean([softmax(near, axis=1) for near in copies], axis=0)
        recovered, from_mean = recover(answers, prior, copy), recover(averaged, prior, copy)
        victims = softmax(logits, axis=1)
        modes[mode] = {
            "parameters": changes,
            "stolen": stolen(answers),
            "stolen_recovered": stolen(recovered),
            "stolen_recovered_averaged": stolen(from_mean),
            "recovered_l1": float(np.abs(recovered - victims).sum(axis=1).mean()),
            "recovered_averaged_l1": float(np.abs(from_mean - true_averaged).sum(axis=1).mean()),
            "tail_pairs_read": tail_pairs_read(answers, victims),
            "cosine": measures.cosine(answers, victims),
            "step_time_ratio": _time_ratio(defence, _defence(), logits[:256]),
        }
    return {
        "dataset": "digits",
        "queries": len(images),
        "seed": seed,
        "steps": steps,
        "beta": SHIPPED.beta,
        "gamma": SHIPPED.gamma,
        "margin": SHIPPED.margin,
        "cpu_count": os.cpu_count(),
        "stolen_labels_only": stolen(one_hot(logits.argmax(axis=1), data.classes)),
        "modes": modes,
    }


def tail_pairs_read(answers: Scores, victims: Scores) -> float:
    """Return the share of pairs of classes, top class aside, whose true order can be read off.

    The answer's order, reversed, is taken for the victim's. 1 is all of them, 0.5 is guessing;
    classes of equal answers count one half.
    """
    classes = answers.shape[1]
    first, second = np.triu_indices(classes, 1)
    top = victims.argmax(axis=1)[:, None]
    kept = (first != top) & (second != top)
    read = np.sign(answers[:, second] - answers[:, first])
    true = np.sign(victims[:, first] - victims[:, second])
    return float(((1 + read * true) / 2)[kept].mean())


def _train(images: Images, labels: Any, *, steps: int, seed: int) -> Any:
    import keras

    keras.utils.set_random_seed(seed)
    model = architectures.find("simple")((8, 8, 1), 10)
    train(model, images, one_hot(labels, 10), steps=steps, seed=seed, flips=False)
    return model


def _defence(*, key: bytes = KEY, **changes: Any) -> Postprocessor:
    settings = {"beta": SHIPPED.beta, "gamma": SHIPPED.gamma, "margin": SHIPPED.margin}
    parameters = Parameters(**{"scores": "logits", **settings, **changes})
    return Postprocessor(parameters, key=key if parameters.key_file else b"")


def _time_ratio(one: Callable[[Any], Any], other: Callable[[Any], Any], batch: Scores) -> float:
    """Return the median ratio of the times of two defences, called in turn."""
    ratios = []
    for _ in range(50):
        times = []
        for defence in (one, other):
            start = time.perf_counter()
            defence(batch)
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return float(np.median(ratios))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
