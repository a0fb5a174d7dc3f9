"""``session-policy crd``: prints the CustomResourceDefinitions."""

from __future__ import annotations

import click


@click.command()
@click.argument("plural", required=False)
def crd(plural: str | None) -> None:
    """Prints the CustomResourceDefinitions, or only the one named by its PLURAL."""
    import yaml

    from policy.crd import DEFINITIONS
    from policy.crd import crd as definition

    wanted = [d for d in DEFINITIONS if plural in (None, d.plural)]
    if not wanted:
        raise click.BadParameter(f"must be one of {', '.join(d.plural for d in DEFINITIONS)}")
    click.echo(yaml.safe_dump_all(map(definition, wanted), sort_keys=False, width=110), nl=False)
