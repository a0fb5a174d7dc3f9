"""Runs: what Jobs, Pods, CronJobs and Events show of them."""
