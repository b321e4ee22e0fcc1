"""The servers that we start, and what they leave on a machine: processes, ports, logs, memory.

``child`` starts a server and ends it with all that it has started (``group``);
``die_with_parent`` sees that it never outlives us, ``listening`` that its port is free. What it
prints stays within bounds by ``log_files``; ``memory`` measures what it and its children
take, ``cpu`` how much CPU time it has used.
"""
