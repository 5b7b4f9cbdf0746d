"""A measurement server: one process that warms up once and then measures one round per line on its standard input.

`gantry bench` runs a baseline and its own code in turns, so that both see the same machine load. Protocol, one JSON
object a line on standard output:
    {"ready": true, ...}        after loading and warm-up, with the versions and settings measured
    {"missing": "reason"}       a package is not installed; the process exits with status 0
    {"error": "reason"}         loading or a round failed; the process exits with status 1
    one object a round          in answer to each "run" line; see the script for its fields
An empty line is ignored; "quit" or the end of the input ends the process.
"""

import argparse
import json
import os
import sys


def emit(record):
    """Prints one protocol line. `sys.stdout` itself is redirected by `serve`, so that no library can garble it."""
    print(json.dumps(record), file=_protocol, flush=True)


# Libraries, native ones included, print to descriptor 1; keep the real one for the protocol and point 1 at stderr.
_protocol = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def parser(description, model_help):
    options = argparse.ArgumentParser(description=description)
    options.add_argument("model", help=model_help)
    options.add_argument("--threads", type=int, default=2, help="threads of the engine (default 2)")
    options.add_argument("--seed", type=int, default=0, help="seed of the random token ids (default 0)")
    return options


def limit_threads(count):
    """Call before importing torch or numpy: their pools read these variables once."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def serve(load):
    """`load()` imports, loads, warms up and returns (settings, round); `round()` measures once and returns a dict."""
    try:
        settings, run_round = load()
    except ImportError as error:
        emit({"missing": f"{error}"})
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - everything that ends a server is one protocol line
        emit({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
    emit({"ready": True, **settings})
    for line in sys.stdin:
        command = line.strip()
        if command == "quit":
            return
        if not command:
            continue
        if command != "run":
            emit({"error": f"unknown command '{command}': expected 'run' or 'quit'"})
            sys.exit(1)
        try:
            emit(run_round())
        except Exception as error:  # noqa: BLE001
            emit({"error": f"{type(error).__name__}: {error}"})
            sys.exit(1)


def serve_settings(description, load):
    """The main function of a script whose one option is --settings, a JSON object that `load(settings)` takes."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--settings", type=json.loads, required=True)
    settings = options.parse_args().settings
    serve(lambda: load(settings))


def reset_peak_memory():
    """Sets the kernel's high-water mark of this process (VmHWM) to what is resident now; False where not allowed."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return True
    except OSError:
        return False


def peak_memory():
    """Resident high-water marks in bytes: since the last reset, and of the whole life of the process."""
    import resource

    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    return {
        "peak_rss_bytes": int(status["VmHWM"].split()[0]) * 1024,
        "peak_rss_lifetime_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
