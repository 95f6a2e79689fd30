"""Child processes with a log file, stopped by pid, never by name."""

import os
import signal
import socket
import subprocess

from wait import Timeout, wait_for


class Process:
    """A program in its own process group; its output goes to log_path (and is readable as text)."""

    def __init__(self, argv, log_path, env=None, stdin_text=None, pass_fds=(), cwd=None):
        self.argv = [str(a) for a in argv]
        self.name = os.path.basename(self.argv[0])
        self.log_path = log_path
        with open(log_path, "ab") as log:
            self.child = subprocess.Popen(
                self.argv, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=cwd, pass_fds=pass_fds,
                stdin=subprocess.DEVNULL if stdin_text is None else subprocess.PIPE,
                start_new_session=True)
        if stdin_text is not None:
            self.child.stdin.write(stdin_text.encode())
            self.child.stdin.close()

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child.poll() is None

    def output(self):
        with open(self.log_path, "rb") as log:
            return log.read().decode(errors="replace")

    def wait_output(self, text, seconds=20):
        """Waits until text (or a compiled pattern) is in the output; fails at once if the program ends."""
        def seen():
            alive = self.alive()
            output = self.output()
            found = text in output if isinstance(text, str) else text.search(output)
            if not found and not alive:
                raise AssertionError("%s ended with status %s before writing %r; its output ends: %s" % (
                    self.name, self.child.returncode, text, output[-2000:]))
            return found
        return wait_for(seen, seconds, lambda: "%r in the output of %s, which ends: %s" % (
            text, self.name, self.output()[-2000:]))

    def wait_exit(self, seconds=20):
        """Waits until the program has ended by itself; its exit status (-N: signal N)."""
        wait_for(lambda: not self.alive(), seconds, "%s (pid %d) to end" % (self.name, self.pid))
        return self.child.returncode

    def signal(self, number):
        if self.alive():
            os.kill(self.pid, number)

    def kill(self):
        """Ends the program the hard way; its exit status."""
        self.signal(signal.SIGKILL)
        return self.child.wait()

    def stop(self, seconds=10):
        """Asks the program to end, insists after a while; its exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait_exit(seconds)
        except Timeout:
            return self.kill()


def resident_kb(pid):
    """Resident memory of a process in KiB."""
    with open("/proc/%d/status" % pid) as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def threads(pid):
    """What /proc says of each thread of a process: {"name/tid": {field: value}}."""
    found = {}
    for tid in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/status" % (pid, tid)) as status:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        except OSError:
            continue  # it has ended
        found["%s/%s" % (fields["Name"], tid)] = fields
    return found


def cpu_seconds(pid):
    """Processor time a process has used so far."""
    with open("/proc/%d/stat" % pid) as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid):
    """Pids of a process's direct children."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/stat" % entry) as stat:
                    if int(stat.read().rpartition(")")[2].split()[1]) == pid:
                        found.append(int(entry))
            except (OSError, IndexError):
                pass
    return found


def free_ports(n):
    """TCP ports of loopback that nobody listens on now."""
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
