"""The release as Pulumi components: one component a file, wired in the order of the plan by `components.staging`."""
