"""`make zoo`: trains what has not been trained, judges all of it, and writes docs/diagnosis.md.

    PYTHONPATH=scripts python -m zoo [--half tune] [--seeds 0] [--kind presets] [--show] [NAME...]

With a half, a kind, names or `--show` it prints what the diagnosis says, and writes no page.
"""

from __future__ import annotations

import argparse

from zoo import judging, page, running
from zoo.presets import SETS

SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zoo")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of configurations and loops")
    parser.add_argument("--half", choices=SETS, help="only this half")
    parser.add_argument("--kind", choices=(running.PRESET, running.LOOP), help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--show", action="store_true", help="print, and write no page")
    parser.add_argument("--outcomes", action="store_true", help="print only whether labels hold")
    parser.add_argument("--no-runs", action="store_true", help="judge only what has ended")
    args = parser.parse_args()
    halves = [args.half] if args.half else SETS
    kinds = [args.kind] if args.kind else (running.PRESET, running.LOOP)
    jobs = running.list_jobs(args.seeds, halves, kinds)
    jobs = [job for job in jobs if not args.names or job.name in args.names]
    if not args.no_runs:
        running.run_jobs(jobs)
    judged = list(judging.judge_all(jobs))
    if args.outcomes:
        print("\n".join(judging.list_unconfirmed(judged)))
    elif args.show or args.half or args.kind or args.names:
        print(page.show(judged))
    else:
        page.write(judged)


if __name__ == "__main__":
    main()
