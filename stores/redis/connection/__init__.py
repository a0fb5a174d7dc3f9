"""From a Redis URL to commands: stand-alone, Sentinel, Cluster."""
