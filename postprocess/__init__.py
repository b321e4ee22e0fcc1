"""The Reverse Sigmoid defence that runs as the last step of a Triton ensemble.

What config.pbtxt says: ``parameters``, refused unless every word is understood; ``defences``, what
each of them needs; ``defence_config``, those and the tensors around them; ``lint``, settings that
load and defend badly.

From scores to protected probabilities, in the order of the pipeline:

1. ``scores``           what the victim hands over, checked and made into logits
2. ``pseudo_logits``    softmax and its pseudo-logits, stable in float32
3. ``top1``             the accuracy constraint: the largest beta that keeps the top class
4. ``reverse_sigmoid``  equation 2, or one of the paper's ``baselines``
5. ``quantise``         few decimals; in the place of 2 to 5 ``calibrated``, with the table that
   ``calibration`` reads: answers for honest clients, or ``decoy``: deceptive ones with a bound
6. ``kernel``           2 to 5 once more, in C (``c/``); where it was not compiled they run
7. ``postprocessor``    the one door to all of the above

``arrays`` names what an array holds, ``errors`` what a person is told in one line.

Around it: ``triton_model``, Triton requests in, Triton responses out, no maths; ``suspicion``,
whether it is fed what config.pbtxt says; ``metrics``, what it counts; ``sparing_log``, what it
says to the operator; ``perturbation``, how far answers are from the victim's; ``ready``, the
health check of a container, which asks the ``question`` that stands beside a model.

NumPy is all it needs, and it imports nothing else of this project.
"""

#: By which model.py tells this package from another of the same everyday name.
PROJECT = "triton-reverse-sigmoid"
__version__ = "0.1.0"
