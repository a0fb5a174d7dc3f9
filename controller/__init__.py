"""The operator: turns SessionPolicies into CronJobs and reports what their runs did."""
