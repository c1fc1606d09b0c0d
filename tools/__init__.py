"""What surrounds a release on one machine: pinned tools, the embedded cluster, images, assembling, the environment.

Nothing here is imported by the program, the steps or the platform.
"""
