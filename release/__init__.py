"""The release in plain Python: what is released, under which settings, as which deployment, and what came of it.

No Pulumi resource is imported here; only `release.cli` touches the Automation API.
"""
