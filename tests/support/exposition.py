"""What Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def samples(exposition: str, **labels: str) -> dict[str, float]:
    """The samples that have these labels, by their name without the prefix and the values of their other labels."""
    found = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.labels.items() >= labels.items():
                own = [value for key, value in sample.labels.items() if key not in labels]
                found[" ".join([sample.name.removeprefix("session_policy_"), *own])] = sample.value
    return found
