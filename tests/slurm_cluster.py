"""A Slurm cluster of one node on loopback, from Debian's packages slurm-wlm and munge, in a folder of its own.

Its key, sockets, ports, configuration and state are its own, so that it shares nothing with a cluster that is there already.
Needs root, as slurmd starts jobs as their owners.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/sbin"
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
# Short times, so that a dead node is seen, and its jobs go back into the queue, in seconds; but not so short that a node which
# other tests keep waiting counts as dead. Credentials expire early, since a job
# that is put back waits for that. More CPUs and memory than the machine has (config_overrides), so that jobs run side by side.
# squeue tells of finished jobs for MinJobAge; no accounting is there to ask.
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=1,sched_interval=2
MpiDefault=none
SwitchType=switch/none
MinJobAge=600
DefMemPerCPU=500
KillWait={grace}
SlurmdTimeout=15
MessageTimeout=15
BatchStartTimeout=15
ReturnToService=2
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Cluster:
    """A cluster that runs. environment: with what its commands, and jobs that they start, find it."""

    folder: Path
    node: str
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, for this cluster alone."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        own = {"SLURM_CONF": f"{self.folder}/slurm.conf", "PATH": f"{self.folder}/bin:{SEARCHED}"}
        return others | own

    def ask(self, *words: str) -> str:
        """What one of Slurm's commands prints. CalledProcessError where it fails."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    def jobs(self, state: str = "all") -> dict[str, tuple[str, str]]:
        """Job id -> (state, comment) of jobs in a state, such as running; Snakemake's comment names rule and step."""
        lines = self.ask("squeue", "--noheader", "--states", state, "--format", "%i|%T|%k").splitlines()
        return {job: (now, comment) for job, now, comment in (line.split("|", 2) for line in lines)}

    def node_state(self) -> str:
        """Such as idle, mixed, down*."""
        return self.ask("sinfo", "--noheader", "--Node", "--format", "%t")

    def start(self, name: str, command: list[str], ready: Callable[[], bool]) -> None:
        """Start a daemon, and wait until it is ready. RuntimeError: it ended, or was not ready in 30 s."""
        log = self.folder / f"{name}.out"
        with open(log, "wb") as out:
            daemon = subprocess.Popen(
                command, stdout=out, stderr=out, env=self.environment, cwd=self.folder, start_new_session=True
            )
        self.daemons[name] = daemon
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(subprocess.SubprocessError):
                if ready():
                    return
            if daemon.poll() is not None or time.monotonic() > end:
                own = self.folder / f"{name}.log"
                said = [*log.read_text().splitlines(), *(own.read_text().splitlines() if own.exists() else ())]
                what = f"ended with {daemon.poll()}" if daemon.poll() is not None else "was not ready in 30 s"
                raise RuntimeError(f"{name} {what}: {said[-1] if said else 'it said nothing'}")
            time.sleep(0.1)

    def start_node(self) -> None:
        """Start the node's daemon, anew after `kill_node`; jobs can run on it then."""
        ready = {"idle", "mix", "alloc"}
        self.start("slurmd", ["slurmd", "-D"], lambda: self.node_state() in ready)

    def kill_node(self) -> list[int]:
        """Kill the node's daemon and all that it runs, as the loss of its machine would; the jobs' processes it had."""
        daemon = self.daemons.pop("slurmd")
        daemon.kill()
        daemon.wait()
        killed = []
        while there := self._job_processes():
            for process in there:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    killed.append(process.pid)
            time.sleep(0.05)
        return killed

    def _job_processes(self) -> list[psutil.Process]:
        """What runs of this cluster's jobs: what says so in its environment, and what of slurmd's kind writes the node's log."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.name() in ("slurmstepd", "slurmd"):  # whose environment is overwritten by their title
                    own = str(self.folder / "slurmd.log") in [file.path for file in process.open_files()]
                else:
                    given = process.environ()
                    own = "SLURM_JOB_ID" in given and given.get("SLURM_CONF") == str(self.folder / "slurm.conf")
                found += [process] if own else []
        return found

    def close(self) -> None:
        """End the jobs, then the daemons, the last one first."""
        if "slurmd" in self.daemons:
            self.kill_node()
        for daemon in [*self.daemons.values()][::-1]:
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


def free_ports(number: int) -> list[int]:
    """Ports on loopback that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def why_not() -> str:
    """Why no cluster can be started here; "" where one can."""
    missing = [name for name in COMMANDS if not shutil.which(name, path=SEARCHED)]
    return f"Slurm's {', '.join(missing)} not installed" if missing else "not root" if os.geteuid() else ""


@contextlib.contextmanager
def slurm_cluster(folder: Path, cpus: int = 4, memory_mb: int = 64_000, grace_s: int = 30) -> Iterator[Cluster]:
    """While in here a cluster of one node runs, with what it needs in `folder` (a short path: sockets lie there).

    cpus, memory_mb: what the node says it has, whatever the machine has; grace_s: KillWait, between SIGTERM and SIGKILL.
    RuntimeError, one line: what is missing, or which daemon did not start and its last word.
    """
    if reason := why_not():
        raise RuntimeError(f"no Slurm cluster can be started here: {reason}; as root: apt-get install slurm-wlm munge.")
    node = socket.gethostname().partition(".")[0]
    for name in ("munge", "state", "spool", "bin"):
        (folder / name).mkdir(mode=0o755, parents=True)
    values = {"folder": folder, "node": node, "ports": free_ports(2), "cpus": cpus, "memory": memory_mb}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values, grace=grace_s))
    # Snakemake's executor takes SLURM_CONF from the srun that it calls within a job.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=SEARCHED)} "$@"\n')
    srun.chmod(0o755)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--log-file={folder}/munged.log"]
    munged += [f"--{name}={folder}/munge/{name}" for name in ("socket", "seed-file", "pid-file")]
    cluster = Cluster(folder, node)
    try:
        cluster.start("munged", munged, lambda: (folder / "munge/socket").exists())
        cluster.start("slurmctld", ["slurmctld", "-D", "-i"], lambda: cluster.ask("scontrol", "ping").endswith("is UP"))
        cluster.start_node()
        yield cluster
    finally:
        cluster.close()


if __name__ == "__main__":  # python tests/slurm_cluster.py FOLDER: a cluster to try things on, until Ctrl-C or SIGTERM
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    with slurm_cluster(Path(sys.argv[1]).resolve()) as running:
        print(f"export SLURM_CONF={running.folder}/slurm.conf PATH={running.folder}/bin:$PATH", flush=True)
        signal.pause()
