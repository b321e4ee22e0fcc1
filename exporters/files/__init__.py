"""Files whole or not at all.

``atomic_file`` writes one, ``placing`` puts several in their places. ``owned_folders`` go also
where a process was killed, ``alone`` lets one process at a time into a folder, ``linking`` makes no
copies of what is large, and ``servable_path`` says where a repository may lie.
"""
