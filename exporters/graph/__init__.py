"""An ONNX file as a graph.

``onnx_graph`` says what the file holds, ``onnx_signature`` what it takes and gives, and
``external_data`` what it keeps beside it. ``triton_releases`` says who can load it, ``onnx_run``
finds input that it runs on, ``zipmap`` is taken off, and ``onnx_nodes`` writes operators.
"""
