"""How workers are started: threads, processes of this machine, or Ray actors on several machines."""

from __future__ import annotations

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.runtime.launch.launcher import Launcher, WorkerProcess

__all__ = ["LAUNCHERS", "Launcher", "WorkerProcess", "make_launcher"]

LAUNCHERS = ("process", "inproc", "ray")


def make_launcher(
    name: str | Launcher, plan: Plan, model_type: str, *, threads: int = 1, on_cpu: bool = True
) -> Launcher:
    """The launcher called `name`; a launcher object is returned as it is.

    Parameters
    ----------
    name
        ``process``, ``inproc``, ``ray``, or a launcher.
    plan
        The plan whose workers are to be started.
    model_type
        Family of its model, as its config.json names it: the code that worker processes load in advance. Empty for
        stand-ins, which need none.
    threads
        Torch threads of each worker on a CPU.
    on_cpu
        Whether some workers compute on a CPU.

    Returns
    -------
    Launcher
        Ready to start workers.

    Raises
    ------
    InputError
        When the name is unknown, or a Ray cluster lacks the machines of the plan.

    Examples
    --------
    >>> from helix_kit.runtime.launch.inproc import InprocLauncher
    >>> launcher = InprocLauncher()
    >>> make_launcher(launcher, plan=None, model_type="llama") is launcher
    True
    """
    if not isinstance(name, str):
        return name
    if name == "process":
        from helix_kit.runtime.launch.process import ProcessLauncher

        return ProcessLauncher(model_type, threads=threads, forks=on_cpu)
    if name == "inproc":
        from helix_kit.runtime.launch.inproc import InprocLauncher

        return InprocLauncher()
    if name == "ray":
        from helix_kit.runtime.launch.ray import RayLauncher

        return RayLauncher(plan, threads=threads)
    raise InputError(_files.unknown("launcher", name, LAUNCHERS), field="launcher")
