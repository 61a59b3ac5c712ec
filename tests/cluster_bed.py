"""Three hosts on this machine: namespaces with addresses, processes and folders of their own.

Each has an interface on a common bridge, an sshd, a home and a temporary folder for Ray; the file
system below is this machine's. Needs root, and Debian's iproute2, openssh-server and rsync.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from tests.s3 import KEYS, storage_at

TOP = Path(__file__).parents[1]
NETWORK = "10.77.0"
GATEWAY = f"{NETWORK}.1"
HEAD, *WORKERS = (f"{NETWORK}.{number}" for number in (11, 12, 13))
LATE = f"{NETWORK}.14"  # a host that is not in the cluster's file
BRIDGE = "qabed"  # and the start of the hosts' names
PROGRAMS = ("ip", "sshd", "rsync", "ssh", "ssh-keygen", "unshare", "setpriv")
PRIVATE = ("/tmp/ray", "/tmp/ray-extractive-qa")  # a host's own
SPACES = ("--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")  # of a host
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")  # where the tests' process is killed
MEMORY_BYTES = 6 * 10**9  # that the hosts, their Ray nodes and a job take
SECONDS_TO_START = 60


def missing() -> str:
    """What this machine lacks for the bed; empty where it has all."""
    if os.geteuid() != 0:
        return "not root"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    programs = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if programs:
        return f"no {', '.join(programs)}"
    if psutil.virtual_memory().available < MEMORY_BYTES:
        return "less than 6 GB of memory free"
    probe = f"qaprobe{os.getpid()}"
    links = "ip link add one type bridge && ip link add two type veth peer name three"
    for command in (["ip", "netns", "add", probe], ["ip", "netns", "delete", probe]):
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        if tried.returncode:
            return f"no right to make namespaces ({tried.stderr.strip()})"
    command = ["unshare", *SPACES, "--net", "sh", "-c", f"{links} && hostname one"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return tried.stderr.strip() and f"no right to make namespaces ({tried.stderr.strip()})"


@dataclass
class Host:
    """A host: what happens to it, and how commands are run on it."""

    name: str  # of its network namespace
    address: str
    folder: Path  # its home and temporary folders
    process: subprocess.Popen[bytes] | None = None

    def start(self, sshd: Sequence[str]) -> None:
        """Switch the host on."""
        private = [f"mount --bind {self.folder}{path} {path}" for path in PRIVATE]
        passwd = self.folder / "passwd"
        passwd.write_text(with_home(Path("/etc/passwd").read_text(), self.folder / "home"))
        names = self.folder / "hosts"
        names.write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        files = [f"mount --bind {passwd} /etc/passwd", f"mount --bind {names} /etc/hosts"]
        steps = " && ".join([*private, *files, f"hostname {self.name}"])
        init = [sys.executable, str(Path(__file__).with_name("bed_init.py")), *sshd]
        self.process = subprocess.Popen(
            [
                *DIES_WITH_US,
                *("ip", "netns", "exec", self.name),
                "unshare",
                *SPACES,
                *("sh", "-c", f'{steps} && exec "$@"', "host", *init),
            ],
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "host.log").open("ab"),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def power_off(self) -> None:
        """End every process of the host at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def cut_off(self) -> None:
        """Take the host off the network; it goes on, alone."""
        run("ip", "-n", self.name, "link", "set", "eth0", "down")

    def reconnect(self) -> None:
        """Bring the host back to the network."""
        run("ip", "-n", self.name, "link", "set", "eth0", "up")
        run("ip", "-n", self.name, "route", "replace", "default", "via", GATEWAY)

    @contextmanager
    def slowed(self) -> Iterator[None]:
        """What runs for Ray's tasks and actors has a fifth of the time, by halts of 0.4 s."""
        over = threading.Event()

        def halt() -> None:
            while not over.wait(0.1):
                pids = self.pids("ray::")
                send(pids, signal.SIGSTOP)
                over.wait(0.4)
                send(pids, signal.SIGCONT)

        thread = threading.Thread(target=halt, name=f"slow {self.address}")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def pids(self, word: str) -> list[int]:
        """Processes of the host, as this machine numbers them, with `word` in their command."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                is_here = (folder / "ns/net").readlink() == self.namespace()
            except (OSError, ValueError):
                continue
            if is_here and word in command:
                found.append(int(folder.name))
        return found

    def namespace(self) -> Path:
        """The network of the host's processes."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/ns/net").readlink()

    def kill(self, word: str) -> int:
        """SIGKILL processes with `word` in their command; how many there were."""
        pids = self.pids(word)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """A signal for each process that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass
class Bed:
    """The hosts, and the files to reach them with."""

    folder: Path
    hosts: dict[str, Host] = field(default_factory=dict)  # by address

    @property
    def key(self) -> Path:
        """The private key that opens all hosts."""
        return self.folder / "key"

    def switch_on(self, host: Host) -> None:
        """Start a host that is off, and wait for its sshd."""
        host.start(sshd_command(self, host))
        wait_until(lambda: answers(self, host.address), f"sshd of {host.address}")

    def ssh(self, address: str, command: str, *, timeout: float = 120) -> str:
        """What a command on a host prints."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        done = subprocess.run(
            ["ssh", "-i", str(self.key), *[f"-o{o}" for o in options], f"root@{address}", command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def submitter(self, *command: str, **more: Any) -> subprocess.Popen[str]:
        """Begin a command beside the hosts, with a home and a folder for Ray of its own."""
        private = self.folder / "submitter"
        shell = f'mount --bind {private}/tmp/ray /tmp/ray && exec "$@"'
        return subprocess.Popen(
            [*DIES_WITH_US, "unshare", "--mount", "sh", "-c", shell, "submitter", *command],
            text=True,
            env={**clean_environment(), "HOME": str(private / "home"), **more.pop("env", {})},
            **more,
        )


def with_home(passwd: str, home: Path) -> str:
    """/etc/passwd with another home for root."""
    lines = [line.split(":") for line in passwd.splitlines()]
    return "".join(
        ":".join([*line[:5], str(home), *line[6:]] if line[0] == "root" else line) + "\n"
        for line in lines
    )


def clean_environment() -> dict[str, str]:
    """This process's environment without what concerns another Ray or another storage."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_", "PYTHONPATH"))}
    programs = Path(sys.executable).parent
    return {**kept, "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin"}


def run(*command: str) -> None:
    """A command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@contextmanager
def three_hosts(folder: Path) -> Iterator[Bed]:
    """The bed, its hosts on and reachable by ssh; all of it gone at the end."""
    bed = Bed(folder)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(bed.key))
    shutil.copy(f"{bed.key}.pub", folder / "authorized_keys")
    for path in ("tmp/ray", "home/.ray"):
        (folder / "submitter" / path).mkdir(parents=True)
    for path in PRIVATE:
        Path(path).mkdir(exist_ok=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    with only_bed(), ExitStack() as stack:
        clear_remains()
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        stack.callback(run, "ip", "link", "delete", BRIDGE)
        run("ip", "address", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        for address in (HEAD, *WORKERS):
            add_host(bed, address, stack)
        yield bed


@contextmanager
def only_bed() -> Iterator[None]:
    """Hold this machine's one bed; a killed process holds it no more."""
    with Path(f"/run/{BRIDGE}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssertionError("the three hosts are up for another pytest: wait for it") from None
        yield


def clear_remains() -> None:
    """Remove the networks of a killed bed: they take the answers of hosts with its addresses."""
    for kind, folder in (("link", "/sys/class/net"), ("netns", "/run/netns")):
        for path in Path(folder).glob(f"{BRIDGE}*"):
            run("ip", kind, "delete", path.name)


def add_host(bed: Bed, address: str, stack: ExitStack) -> Host:
    """Another host of the bed, switched on."""
    number = len(bed.hosts)
    host = Host(f"{BRIDGE}h{number}", address, bed.folder / f"host{number}")
    make_host(host, stack)
    stack.callback(host.power_off)
    bed.switch_on(host)
    bed.hosts[address] = host
    return host


def make_host(host: Host, stack: ExitStack) -> None:
    """A network namespace with an interface on the bridge; folders an earlier one left stay."""
    for path in (*PRIVATE, "/home"):
        (host.folder / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    outside = f"{host.name}v"
    run("ip", "netns", "add", host.name)
    stack.callback(run, "ip", "netns", "delete", host.name)
    run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", host.name)
    stack.callback(run, "ip", "link", "delete", outside)  # its namespace may live a moment longer
    run("ip", "link", "set", outside, "master", BRIDGE, "up")
    run("ip", "-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
    run("ip", "-n", host.name, "link", "set", "lo", "up")
    host.reconnect()


def sshd_command(bed: Bed, host: Host) -> list[str]:
    """An sshd in the foreground that the bed's key opens."""
    key = host.folder / "host_key"
    if not key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    options = {
        "HostKey": key,
        "ListenAddress": host.address,
        "AuthorizedKeysFile": bed.folder / "authorized_keys",
        "PidFile": "none",
        "PermitRootLogin": "yes",
        "StrictModes": "no",
        "UsePAM": "no",
    }
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin") or "sshd"
    return [sshd, "-D", "-e", "-f", "/dev/null", *[f"-o{k}={v}" for k, v in options.items()]]


def answers(bed: Bed, address: str) -> bool:
    """Whether a host lets us in."""
    try:
        bed.ssh(address, "true", timeout=5)
    except (AssertionError, subprocess.TimeoutExpired):
        return False
    return True


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = SECONDS_TO_START) -> None:
    """Return when something is so; an error where it is not in time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not after {seconds:.0f} s"
        time.sleep(0.2)


@dataclass
class Cluster:
    """A Ray cluster on the bed, started from cluster-local.yaml, and an S3 server beside it."""

    bed: Bed
    file: Path  # the cluster's configuration
    address: str  # of the dashboard, at the submitter's end of the tunnel
    storage: str  # URI of the bucket

    def token(self) -> str:
        """The cluster's secret."""
        return (self.bed.folder / "submitter/home/.ray/auth_token").read_text().strip()

    def command(self, *command: str) -> list[str]:
        """A command of this environment's Python, its name first."""
        return [str(Path(sys.executable).with_name(command[0])), *command[1:]]

    def submit(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Begin `python -m jobs.submit …`, its output to be read from `stdout`."""
        return self.bed.submitter(
            *self.command("python", "-m", "jobs.submit", *arguments),
            env={**TOKEN, "RAY_API_SERVER_ADDRESS": self.address, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=TOP,
        )

    def run(self, *arguments: str, seconds: float = 600) -> str:
        """What a submitted job prints until it has succeeded."""
        process = self.submit(*arguments)
        printed, _ = process.communicate(timeout=seconds)
        assert process.returncode == 0, printed[-6000:]
        return printed

    @contextmanager
    def late_host(self) -> Iterator[Host]:
        """A host that joins the cluster by hand, with the start lines of the others."""
        config = yaml.safe_load(self.file.read_text())
        commands = [*config["setup_commands"], *config["worker_start_ray_commands"]]
        with ExitStack() as stack:
            host = add_host(self.bed, LATE, stack)
            stack.callback(self.bed.hosts.pop, LATE)
            copy_secrets(host, self.token())
            self.bed.ssh(LATE, f"export RAY_HEAD_IP={HEAD}; " + " && ".join(commands))
            yield host

    def writers(self, *words: str) -> Counter[str]:
        """Objects with all `words` in their key that were written, by where they came from."""
        pattern = re.compile(r"^([\d.]+) - - .*\"(?:\x1b\[\d+m)*PUT (\S+?)(?:\?\S*)? HTTP")
        lines = (self.bed.folder / "s3.log").read_text(errors="replace").splitlines()
        found = {match.groups() for line in lines if (match := pattern.match(line))}
        return Counter(address for address, key in found if all(word in key for word in words))


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
S3_PORT = 5555
# A host that does not answer is given up after 24 s at most; Ray's own patience is 65 s.
PATIENCE = "RAY_health_check_timeout_ms=5000 RAY_health_check_failure_threshold=3"


def cluster_file(bed: Bed, endpoint: str) -> Path:
    """cluster-local.yaml with the bed's addresses and key, and this environment in its place."""
    config = yaml.safe_load((TOP / "cluster-local.yaml").read_text())
    config["cluster_name"] = f"bed{os.getpid()}"
    config["provider"] |= {"head_ip": HEAD, "worker_ips": WORKERS}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(bed.key)}
    config["setup_commands"] = [f"ln -sfn {sys.prefix} ~/qa-venv"]
    for kind, more in (("head", ""), ("worker", " --num-cpus=1")):
        name = f"{kind}_start_ray_commands"
        stop, start = config[name]
        start = start.replace("export ", f"export AWS_ENDPOINT_URL={endpoint} {PATIENCE} ", 1)
        config[name] = [stop, f"{start}{more} --object-store-memory=150000000"]
    file = bed.folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@contextmanager
def running_cluster(bed: Bed) -> Iterator[Cluster]:
    """`ray up`, the S3 server and the tunnel; all ended, and `ray down`, at the end."""
    endpoint = f"http://{GATEWAY}:{S3_PORT}"
    for host in bed.hosts.values():
        copy_secrets(host)
    with ExitStack() as stack:
        server = subprocess.Popen(
            [*DIES_WITH_US, sys.executable, "-m", "moto.server", "-H", GATEWAY, "-p", str(S3_PORT)],
            stdout=subprocess.DEVNULL,
            stderr=(bed.folder / "s3.log").open("wb"),
        )
        stack.callback(end, server)
        stack.enter_context(storage_at(endpoint))
        wait_until(lambda: make_bucket(f"{endpoint}/bed"), "the S3 server")
        file = cluster_file(bed, endpoint)
        finish(bed, "ray", "get-auth-token", "--generate")
        finish(bed, "ray", "up", "-y", "--no-config-cache", str(file))
        stack.callback(finish, bed, "ray", "down", "-y", str(file))
        tunnel = bed.submitter(
            *("ray", "dashboard", "--port", "18265", str(file)),
            env=TOKEN,
            stdout=subprocess.DEVNULL,
        )
        stack.callback(end, tunnel)
        yield Cluster(bed, file, "http://127.0.0.1:18265", "s3://bed")


def copy_secrets(host: Host, token: str = "") -> None:
    """Give a host the storage's keys, in a profile, and the cluster's token where it has none."""
    keys = "".join(f"{name.lower()} = {value}\n" for name, value in KEYS.items())
    for place, text in ((".aws/credentials", f"[default]\n{keys}"), (".ray/auth_token", token)):
        if text:
            file = host.folder / "home" / place
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)


def finish(bed: Bed, *command: str, address: str = "") -> str:
    """What a command of the submitter prints; it must succeed."""
    given = {"RAY_API_SERVER_ADDRESS": address} if address else {}
    process = bed.submitter(
        *command, env=TOKEN | given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=TOP
    )
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return str(printed)


def end(process: subprocess.Popen[Any]) -> None:
    """Ask a process to end, and wait for it."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def make_bucket(url: str) -> bool:
    """Whether the S3 server has made a bucket."""
    try:
        return requests.put(url, timeout=10).ok
    except requests.RequestException:
        return False
