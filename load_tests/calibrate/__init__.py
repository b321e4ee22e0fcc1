"""The table of calibrated answers, and what honest clients get from it.

``fit`` makes the table from what a classifier said about rows whose labels are known, ``honest``
says what clients can do with answers, and ``calibration_report`` shows raw, deceptive and
calibrated ones side by side.
"""
