"""Stealing attacks: which questions to spend a query budget on.

``base`` says what an attack is, and ``registry`` finds each by its name: ``sample`` asks about real
images, ``random_images`` about noise, ``knockoff`` about images of another kind,
``near_duplicates`` about each image several times, and ``jacobian`` about images that it moves
along a substitute's ``input_gradient``. Two choose among real rows: ``margin`` those that a
substitute wavers on, ``k_center`` those far from all others. The same code attacks a live endpoint,
a victim in this process, and runs in Locust.
"""
