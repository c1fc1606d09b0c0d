"""What runs inside the cluster as Jobs: one image, one module a step, and the one format of the records.

`records`, `results`, `vocabulary`, `permissions` and `errors` need the standard library only, because the program and
the command line read them too. Nothing here imports the program, `release` or `tools`.
"""
