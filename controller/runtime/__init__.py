"""Leader election, work queue, HTTP endpoint and logs of the process."""
