"""The release as Pulumi components, one a file; `components.release_flow` wires them in the order of the plan."""
