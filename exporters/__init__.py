"""From a classifier, or a data set, to a model repository that Triton serves.

Two ways lead there. ``protect`` takes an ONNX file that exists: ``classifier`` finds out what
it is, with ``onnx_graph`` (what the file says, and the cut to its logits), ``external_data``,
``onnx_run`` (input that it runs on), ``evidence`` (what it gives on much of it) and
``score_output`` (which output holds the scores, and what they are); ``verify`` compares what
was written with the original, ``question`` chooses what health checks ask the protected model,
and ``placing`` puts all files in their places or none.

``pipeline`` starts from a data set. Read in its order: ``datasets`` (images, and the third held
off for the adversary), ``architectures`` (the networks of the paper), ``train``,
``keras_to_onnx``, ``onnx_signature`` (what a graph takes and gives), ``model_repository`` (the
three models, with ``config_pbtxt`` and ``defence_parameters`` for their texts). ``atomic_file``
is how every stage writes its file: whole or not at all.
"""
