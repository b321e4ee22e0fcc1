"""Where the parts come together: servers and the command line.

``cli`` is the command ``reverse-sigmoid``, ``demo`` walks the whole way of the data once,
``triton_server`` runs the Triton of the nvidia-pytriton wheel, ``backends/onnxruntime`` is
its backend for ONNX models.
"""
