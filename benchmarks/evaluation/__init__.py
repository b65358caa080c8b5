VERSION = 1  # raise when the scores of the same assignments change: finished runs are then scored again
