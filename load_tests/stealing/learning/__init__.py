"""Ways to learn more from a transfer set than one training does, without a further query.

``learn`` finds each way by its name: ``self_training`` and ``consistency`` also learn from rows
never asked about, ``self_distillation`` from what a first substitute says of the rows that
were. All of them take labels as well as probabilities, so that what they are worth is no merit of
the probabilities.
"""
