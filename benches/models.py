#!/usr/bin/env python3
"""Tokens per second of whole models: programs that take llama-bench's flags, in turns.

    python3 benches/models.py -m a.gguf -m b.gguf -t 1,2 \\
        "quantblock=target/release/examples/bench" "llama.cpp=path/to/llama-bench" "ik, repacked=path/to/llama-bench -rtr 1"

Each round runs every program once for each model and number of threads, so that a machine whose speed drifts does not
decide. The tables give medians over the rounds and, in brackets, the first program's speed over each other's: the median of
the ratios within the rounds.
"""

import argparse
import csv
import os
import shlex
import statistics
import subprocess
import sys


def run(command, arguments):
    """Tokens per second of the prompt and of generating."""
    done = subprocess.run(shlex.split(command) + arguments, capture_output=True, text=True)
    rows = list(csv.reader(done.stdout.splitlines()))
    header = next((row for row in rows if "avg_ts" in row), None)
    if done.returncode != 0 or header is None:
        sys.exit(f"error: {command} {shlex.join(arguments)}: {done.stderr.strip()[-500:]}")
    tests = [dict(zip(header, row)) for row in rows[rows.index(header) + 1 :] if len(row) == len(header)]
    return {"tg" if int(test["n_gen"]) else "pp": float(test["avg_ts"]) for test in tests}


def table(name, programs, results, options):
    """The rows of a model, whose results are lists over the rounds, by threads, program and test."""
    print(f"\n{name}\n")
    print("| threads | test |", " | ".join(programs), "|")
    print("|--:|---|", " | ".join("--:" for _ in programs), "|")
    for threads in options.threads:
        for test, count in [("pp", options.prompt), ("tg", options.generate)]:
            cells = []
            for program in programs:
                speeds, first = ([round[test] for round in results[threads, p]] for p in (program, programs[0]))
                ratio = statistics.median(a / b for a, b in zip(first, speeds))
                cells.append(f"{statistics.median(speeds):.1f}" + (f" (×{ratio:.2f})" if program != programs[0] else ""))
            print(f"| {threads} | {test}{count} |", " | ".join(cells), "|", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+", metavar="NAME=COMMAND", help="programs with llama-bench's flags")
    parser.add_argument("-m", "--model", action="append", required=True, metavar="FILE", help="a GGUF file")
    parser.add_argument("-p", "--prompt", default=512, type=int, metavar="N", help="tokens of the prompt")
    parser.add_argument("-n", "--generate", default=64, type=int, metavar="N", help="tokens to generate")
    parser.add_argument("-t", "--threads", default="1,2", metavar="N,…", help="numbers of threads")
    parser.add_argument("-r", "--rounds", default=3, type=int, metavar="N", help="rounds")
    options = parser.parse_args()
    options.threads = options.threads.split(",")
    programs = dict(program.split("=", 1) for program in options.programs)
    for model in options.model:
        results = {(threads, name): [] for threads in options.threads for name in programs}
        for _ in range(options.rounds):
            for (threads, name), rounds in results.items():
                flags = ["-m", model, "-p", str(options.prompt), "-n", str(options.generate), "-t", threads]
                rounds.append(run(programs[name], flags + ["-r", "1", "-o", "csv"]))
        table(os.path.basename(model), list(programs), results, options)


if __name__ == "__main__":
    main()
