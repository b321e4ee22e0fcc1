"""From a classifier, or a data set, to a model repository that Triton serves.

Two ways lead there. ``protect`` takes an ONNX file that exists, has ``verify`` compare what was
written with the original, and ``question`` choose what health checks ask the protected model.
``pipeline`` starts from a data set. ``quiet_import`` keeps heavy packages from talking,
and a ``registry`` answers an unknown name with those that it has.

The packages: ``graph`` is an ONNX file as a graph, ``reading`` finds out what classifier it holds,
``fusing`` appends the defence to it, ``training`` makes such a file from a data set,
``repository`` writes what Triton reads, and ``files`` puts all in place or nothing.
"""
