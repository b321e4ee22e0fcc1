"""From a data set to an ONNX file.

``datasets`` are images, features or texts, a third of each set aside for the adversary.
``architectures`` are the networks of the paper, ``mlp``, and one of ``tokens``, which makes ids of
texts. ``train`` trains them by ``trainer``, which keeps what it compiled, and ``keras_to_onnx``
writes what came of it. ``query_files`` writes what an adversary asks.
"""
