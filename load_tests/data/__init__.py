"""What a model is asked about.

``rows`` are what is sent and what a thief learns from. They are ``drawn`` from a data set or from
a file of ``query_sets``, and ``tensors`` makes the model's own inputs of them.
"""
