"""The Triton of the nvidia-pytriton wheel, without Docker.

``wheel`` lays out what that wheel holds, with a backend for ONNX models from
``backends/onnxruntime``; ``server`` runs it. ``cancel_guard`` keeps cancelled calls from crashing
it, in C: see ``guard/guard.h``. ``stub_processes`` finds the processes of its models,
``plain_http`` asks for its counts and states, and ``server_log`` has its reason where it refuses
one.
"""
