"""What a person submits: `python -m jobs.NAME`, here or through `ray job submit`."""
