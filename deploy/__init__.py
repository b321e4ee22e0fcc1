"""Where the parts come together: the server and the command line.

``entry`` is the console script and names the install command of what is missing; ``cli`` has
the commands, ``demo`` the whole way of the data once, ``progress`` what a person sees
meanwhile. ``triton_server`` runs the Triton of the nvidia-pytriton wheel, ``triton_wheel``
lays out what that wheel holds, ``die_with_parent`` sees that it never outlives us, and
``backends/onnxruntime`` is its backend for ONNX models.
"""
