"""Options of other servers that people type from habit, and what does the same here."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

NAMES: Final = {
    "--access-logfile": "--access-log",
    "--access-logformat": "--access-format",
    "--bind-address": "--bind",
    "--blocking-threads": "--threads",
    "--ca-certs": "--client-ca",
    "--cert": "--certificate",
    "--certfile": "--certificate",
    "--channel-timeout": "--idle-timeout",
    "--chdir": "--app-dir",
    "--check-config": "--check",
    "--connection-limit": "--limit-connections",
    "--enable-threads": "--threads",
    "--forwarded-allow-ips": "--trust",
    "--h11-max-incomplete-event-size": "--limit-head",
    "--harakiri": "--request-timeout",
    "--http": "--bind",
    "--http-socket": "--bind",
    "--keep-alive": "--idle-timeout",
    "--keyfile": "--key",
    "--keyfile-password": "--key-password-file",
    "--limit-concurrency": "--limit-connections",
    "--limit-max-requests": "--max-requests",
    "--limit-request-field_size": "--limit-head",
    "--limit-request-fields": "--limit-fields",
    "--listen": "--bind",
    "--log-config-json": "--log-config",
    "--logger-config": "--log-config",
    "--loglevel": "--log-level",
    "--max-request-body-size": "--limit-body",
    "--max-request-header-size": "--limit-head",
    "--min-workers": "--workers",
    "--pid": "--pid-file",
    "--pidfile": "--pid-file",
    "--print-config": "--print-settings",
    "--proxy-allow-from": "--trust",
    "--proxy-allow-ips": "--trust",
    "--proxy-headers": "--trust",
    "--pythonpath": "--app-dir",
    "--reload-dir": "--reload-include",
    "--reload-extra-file": "--reload-include",
    "--reload-paths": "--reload-include",
    "--script-name": "--root-path",
    "--send-bytes": "--limit-unsent",
    "--socket": "--bind",
    "--ssl-ca-certs": "--client-ca",
    "--ssl-certfile": "--certificate",
    "--ssl-certificate": "--certificate",
    "--ssl-keyfile": "--key",
    "--ssl-keyfile-password": "--key-password-file",
    "--ssl-version": "--tls-minimum",
    "--timeout-graceful-shutdown": "--graceful-timeout",
    "--timeout-keep-alive": "--idle-timeout",
    "--timeout-worker-healthcheck": "--worker-timeout",
    "--trusted-proxy": "--trust",
    "--umask": "--socket-mode",
    "--url-prefix": "--root-path",
    "--worker-connections": "--limit-connections",
    "-p": "--port",
}
"""The option that does the same."""

SENTENCES: Final = {
    "--app": "name the application as the argument: bide MODULE:NAME",
    "--call": "a factory is called by brackets: bide 'MODULE:FACTORY()'",
    "--daemon": "Bide stays in the foreground: have systemd, or the container, start it",
    "--daemonize": "Bide stays in the foreground: have systemd, or the container, start it",
    "--env": "set the variable before the command: NAME=VALUE bide MODULE:NAME",
    "--env-file": "have the shell, systemd or the container read that file",
    "--error-logfile": "the log goes to standard error: write 2>FILE, or take --log-config",
    "--factory": "a factory is called by brackets: bide 'MODULE:FACTORY()'",
    "--group": "start Bide as that group, as systemd does by Group=",
    "--log-file": "the log goes to standard error: write 2>FILE, or take --log-config",
    "--log-syslog": "take --log-config with a SysLogHandler",
    "--loop": "Bide runs asyncio's loop: see --reactor, and --executor",
    "--master": "see --workers",
    "--module": "name the application as the argument: bide MODULE:NAME",
    "--wsgi-file": "name the module as the argument, without .py: bide MODULE:NAME",
    "--no-access-log": "there is no access log unless --access-log FILE asks for one",
    "--paste": "write a module that makes the application, and name that: bide MODULE:NAME",
    "--reuse-port": "each of --workers has a socket of its own already",
    "--statsd-host": "Bide sends nothing to StatsD: see bide.status()",
    "--timeout": (
        "a request may take --request-timeout seconds; a client has --head-timeout, "
        "--idle-timeout and --min-rate"
    ),
    "--uds": "write --bind unix:PATH",
    "--unix-socket": "write --bind unix:PATH",
    "--use-colors": "the log has no colours",
    "--user": "start Bide as that user, as systemd does by User=",
    "--worker-class": (
        "Bide has one kind of worker, in which requests that wait hold no thread: see --executor"
    ),
}
"""What to do instead, where it is not one option."""

OTHERS: Final = {
    "-A": "--app",
    "-D": "--daemon",
    "-e": "--env",
    "-g": "--group",
    "-k": "--worker-class",
    "-m": "--umask",
    "-u": "--user",
    "--pool": "--worker-class",
    "--log-to-file": "--log-file",
}
"""Other spellings of those above."""


def equivalent(option: str, known: Container[str]) -> str:
    """Return a line that names what does the same as an option of another server's.

    Empty where nothing is known of the option, or what does the same is not there.

    Args:
        option: as it was typed.
        known: Bide's own options.
    """
    name = OTHERS.get(option, option)
    told = NAMES.get(name) or SENTENCES.get(name, "")
    if not all(each in known for each in re.findall(r"(?<![\w-])--[a-z][a-z-]+", told)):
        return ""
    if name in NAMES:
        return f"{option} is {told} here (bide --help lists the options)"
    return told and f"{option}: {told}"
