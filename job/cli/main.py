"""The command ``session-policy``: its group; each command is a module of its own."""

from __future__ import annotations

import click

from job.cli import crd, demo, doctor, init, plan, report, revoke, run, sessions


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="session-policy-operator")
def main() -> None:
    """Deletes expired and abnormal web sessions, as a SessionPolicy says."""


main.add_command(init.init)
main.add_command(run.run)
main.add_command(crd.crd)
main.add_command(demo.demo)
main.add_command(sessions.sessions)
main.add_command(revoke.revoke)
main.add_command(report.report)
main.add_command(plan.plan)
main.add_command(doctor.doctor)


if __name__ == "__main__":
    main()
