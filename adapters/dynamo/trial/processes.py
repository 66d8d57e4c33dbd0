"""The programs of a fleet on this machine: Dynamo's frontend, workers, etcd, and the plain server to compare with."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

LOOPBACK = "127.0.0.1"
MODEL_NAME = "trial"


def free_port() -> int:
    """Below 32,768: Dynamo reads the port of health and metrics as a signed number of 16 bits."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((LOOPBACK, port))
            return port


def get(url: str, timeout_s: float = 5.0) -> tuple[int, str]:
    """Status and body; status 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, ValueError):
        return 0, ""


class Process:
    """A program that ends with this object; what it says goes to a file."""

    def __init__(self, name: str, command: list[str], folder: Path, environment: dict[str, str] | None = None):
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
            )

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def end(self) -> None:
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def wait_for(self, what: str, is_so, timeout_s: float = 120.0) -> None:
        """Waits until something is so; tells what the program said where it ends or takes too long."""
        until = time.monotonic() + timeout_s
        while not is_so():
            if self.child.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.name}: {what} did not come\n{self.said()[-3000:]}")
            time.sleep(0.1)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


class Fleet:
    """A frontend and its workers, found through a folder or through etcd."""

    def __init__(self, arguments, folder: Path, stack: contextlib.ExitStack, discovery: str = "file"):
        self.arguments, self.folder, self.stack = arguments, folder, stack
        self.workers: list[Process] = []
        self.port = free_port()
        self.environment = {
            "DYN_DISCOVERY_BACKEND": discovery,
            "DYN_REQUEST_PLANE": "tcp",
            "DYN_EVENT_PLANE": "zmq",
            "DYN_FILE_KV": str(folder / "discovery"),
            "DYN_TCP_RPC_HOST": LOOPBACK,
            "DYN_TCP_RESPONSE_STREAM_HOST": LOOPBACK,
            "DYN_EVENT_PLANE_HOST": LOOPBACK,
            "DYN_GRACEFUL_SHUTDOWN_GRACE_PERIOD_SECS": "1",
            # Tells a worker that a request was begun elsewhere, so that no token is counted twice.
            "DYN_LOGGING_JSONL": "true",
        }
        if discovery == "etcd":
            self.environment |= self.start_etcd()

    def start_etcd(self) -> dict[str, str]:
        clients, peers = free_port(), free_port()
        url, peer_url = f"http://{LOOPBACK}:{clients}", f"http://{LOOPBACK}:{peers}"
        command = [self.arguments.etcd, "--data-dir", str(self.folder / "etcd"), "--log-level", "warn"]
        command += ["--listen-client-urls", url, "--advertise-client-urls", url]
        command += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
        command += ["--initial-cluster", f"default={peer_url}"]
        self.etcd = self.start("etcd", command, {})
        self.etcd.wait_for("etcd", lambda: get(f"{url}/health")[0] == 200)
        return {"ETCD_ENDPOINTS": url, "ETCD_LEASE_TTL": "5"}

    def start(self, name: str, command: list[str], environment: dict[str, str]) -> Process:
        process = Process(name, command, self.folder, environment)
        self.stack.callback(process.end)
        return process

    def start_frontend(self, *options: str) -> Process:
        command = [*self.arguments.frontend, "--http-host", LOOPBACK, "--http-port", str(self.port), *options]
        self.frontend = self.start("frontend", command, self.environment)
        self.frontend.wait_for("the frontend", lambda: get(f"http://{LOOPBACK}:{self.port}/health")[0] != 0)
        return self.frontend

    def start_worker(self, *options: str, model: Path | None = None, prefix: tuple[str, ...] = ()) -> Process:
        """A worker; `port` of the process tells its health and metrics."""
        name = f"worker{len(self.workers)}"
        port = free_port()
        system = {"DYN_SYSTEM_PORT": str(port), "DYN_SYSTEM_HOST": LOOPBACK}
        command = [*prefix, self.arguments.worker, str(model or self.arguments.model), "--served-model-name", MODEL_NAME]
        worker = self.start(name, [*command, *options], self.environment | system)
        worker.port = port
        self.workers.append(worker)
        return worker

    def wait_until_served(self, num_workers: int) -> None:
        """Waits until the frontend sees so many workers of the model."""
        url = f"http://{LOOPBACK}:{self.port}/health"

        def is_so() -> bool:
            status, body = get(url)
            if status != 200:
                return False
            instances = json.loads(body).get("instances", [])
            return sum(instance.get("endpoint") == "generate" for instance in instances) == num_workers

        for worker in self.workers:
            worker.wait_for("readiness", lambda worker=worker: get(f"http://{LOOPBACK}:{worker.port}/health")[0] == 200)
        self.frontend.wait_for(f"{num_workers} workers", is_so)
        models = f"http://{LOOPBACK}:{self.port}/v1/models"
        self.frontend.wait_for("the model", lambda: num_workers == 0 or MODEL_NAME in get(models)[1])


def metric(port: int, name: str) -> float:
    """The sum over all labels of a metric."""
    _, text = get(f"http://{LOOPBACK}:{port}/metrics")
    values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return sum(values)


def start_server(arguments, folder: Path, stack: contextlib.ExitStack, *options: str) -> int:
    """The plain server on the same folder; its port."""
    port = free_port()
    command = [arguments.server, "serve", str(arguments.model), "--port", str(port), "--alias", MODEL_NAME, *options]
    server = Process("server", command, folder)
    stack.callback(server.end)
    server.wait_for("the server", lambda: get(f"http://{LOOPBACK}:{port}/health")[0] == 200)
    return port


def kill(process: Process) -> None:
    process.signal(signal.SIGKILL)


def drain(process: Process) -> None:
    process.signal(signal.SIGTERM)
