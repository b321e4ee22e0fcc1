"""Where the parts come together: the command line, and all that serves a protected model.

``entry`` is the console script, which names the install command of what is missing. The packages
below import only those listed before them, and each walks through its own modules:

| package | holds |
| --- | --- |
| ``processes`` | children that end with us: how they are started, watched and stopped |
| ``repository`` | a model repository as files: read, checked, edited |
| ``triton`` | the Triton of the nvidia-pytriton wheel |
| ``existing`` | models that already stand in a repository, protected in place |
| ``supervision`` | what asks protected models again and again, and brings back what fails |
| ``gateway`` | Envoy in front of Triton, as an operator's file says |
| ``audit`` | every way round the defence, tried from the outside |
| ``hostile`` | what hostile clients do to a gateway, all bounded |
| ``benchmarks`` | what the defence and the door cost, and how long they hold |
| ``commands`` | the command line, a module for each command |

``supervision`` and ``gateway`` do not know each other, and ``audit`` knows none of them: it sees
only what any client sees.
"""
