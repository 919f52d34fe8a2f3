"""A copy over TCP between two programs under libken, as a workload: much has been sent that the other one has not acknowledged."""
import sys

import companions
from harness import free_port, subject

MEGABYTES = 2


def sender(t, p):
    port = free_port()
    companions.converse(t, p, "client", [sys.executable, subject("copy_to.py"), str(port)],
                        [sys.executable, subject("copy_from.py"), str(port), str(MEGABYTES), "7"], port, "tcp", ["same"])
