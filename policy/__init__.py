"""The contract between the controller and the cleanup job.

The models in this package are the single source of the SessionPolicy resource: the CustomResourceDefinition is
generated from them, the controller builds CronJobs from them and the job obeys them. Nothing here does I/O or knows
Kubernetes' or a database's client.
"""
