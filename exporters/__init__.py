"""From a data set to a model repository that Triton serves.

Read in the order of the pipeline: ``datasets`` (images, and the third held off for the
adversary), ``architectures`` (the networks of the paper), ``train``, ``keras_to_onnx``,
``onnx_signature`` (what a graph takes and gives), ``model_repository`` (the three models).
``pipeline`` runs them in this order, and ``atomic_file`` is how every stage writes its file:
whole or not at all.
"""
