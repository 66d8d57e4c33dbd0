"""Runs the tests of the chat page: main.py URL_OR_BINARY [NAME...]. run.sh says what that needs."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request

from playwright.sync_api import sync_playwright

import looks
import talk
import trouble
from site_page import KEY, SitePage

FAILED = pathlib.Path("target/ui-tests/failed")


@contextlib.contextmanager
def servers(target):
    """The addresses of the server under test and of one that asks for a key. A binary is started and stopped here; where an address
    is given, there is no second server."""
    if target.startswith(("http://", "https://")):
        yield target.rstrip("/") + "/", None
        return
    if not os.access(target, os.X_OK):
        sys.exit(f"{target} is no program: cargo build --release makes target/release/dualgrain")
    with tempfile.NamedTemporaryFile("w") as keys:
        keys.write(KEY + "\n")
        keys.flush()
        with started(target) as url, started(target, "--api-key-file", keys.name) as keyed_url:
            yield url, keyed_url


@contextlib.contextmanager
def started(binary, *options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([binary, "serve", "models/llama-tiny", "--port", str(port), *options])
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(url, process):
    for _ in range(300):
        if process.poll() is not None:
            sys.exit(f"the server ended with code {process.returncode}")
        try:
            urllib.request.urlopen(url + "health", timeout=5)
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server was not ready within 30 seconds")


def tests_of(modules, names):
    for module in modules:
        for name, test in vars(module).items():
            if name.startswith("test_") and (not names or any(part in name for part in names)):
                yield name.removeprefix("test_"), test


def run(browser, urls, name, test):
    url, keyed_url = urls
    with_key = name.startswith("keyed_")
    if with_key and not keyed_url:
        print(f"skipped {name}: it needs the binary, to start a server with a key", flush=True)
        return None
    site = SitePage(browser, keyed_url if with_key else url)
    try:
        test(site)
        site.assert_clean()
        print(f"ok      {name}", flush=True)
        return True
    except Exception:
        FAILED.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(Exception):
            site.page.screenshot(path=FAILED / f"{name}.png")
        print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
        return False
    finally:
        site.close()


def main():
    target, *names = sys.argv[1:]
    with servers(target) as urls, sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root, as whom containers run.
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
        results = [run(browser, urls, *each) for each in tests_of([talk, trouble, looks], names)]
        browser.close()
    passed, failed, skipped = [results.count(each) for each in (True, False, None)]
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(0 if passed and not failed else 1)


main()
