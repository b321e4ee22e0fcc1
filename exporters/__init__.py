"""From a classifier, or a data set, to a model repository that Triton serves.

Two ways lead there. ``protect`` takes an ONNX file that exists. ``classifier`` finds out what it
is, with ``onnx_graph`` (what the file says), ``triton_releases`` (who can load it),
``external_data``, ``zipmap`` (taken off), ``onnx_run`` (input that it runs on), ``batch`` (how many
rows it takes), ``score_output`` (which output holds the scores), ``graph_ending`` (what they come
from, and the cut to the logits; ``written_softmax`` reads one that is written out), ``class_axis``
(where the classes lie), ``evidence`` (what it gives on much input) and ``score_kind`` (what that
is). In the fused layout, ``fused`` appends the defence to the graph: ``score_nodes`` reads the
scores, ``defence_nodes``, ``calibrated_nodes`` or ``decoy_nodes`` say which operators, and
``onnx_nodes`` writes them. ``verify`` compares what was written with the original, ``question``
chooses what health checks ask the protected model, and ``placing`` puts all files in their places
or none.

``pipeline`` starts from a data set. Read in its order: ``datasets`` (images, features or texts, and
the third held off for the adversary), ``architectures`` (the networks of the paper, ``mlp``, and
``tokens``, which makes ids of texts), ``train`` (by ``trainer``, which keeps what it compiled),
``keras_to_onnx`` and ``model_repository`` (the three models). ``query_files`` writes what an
adversary asks.

Both need ``onnx_signature`` (what a graph takes and gives), ``config_pbtxt`` and
``defence_parameters`` (the texts of the models), ``versions`` (which of a model's are served),
``servable_path`` (where a repository may lie), ``atomic_file`` (a file whole or not at all),
``owned_folders`` (gone also where a process was killed), ``linking`` (no copies of what is large)
and ``quiet_import``.
"""
