"""Writers at work, SIGKILL, restart, look: nothing acknowledged may be lost, doubled or changed.

See ../clients/README.md. Run by `run` beside this file, which finds the binary.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from author import Author, Reader, quoted
from keys import Phones
from ledger import Ledger, Report
from server import Dropped, Refused, Server
from verify import Verifier

# A data folder lives for so many kills, so that checking all of it stays affordable.
CYCLES_PER_FOLDER = 25


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, help="of the moments and of what is written")
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--rooms", type=int, default=4)
    parser.add_argument("--phones", type=int, default=4, help="devices with keys; 0 or 2 and more")
    parser.add_argument("--kill-after", type=float, nargs=2, default=(0.3, 3.0), metavar="S")
    parser.add_argument("--set", action="append", default=[], help="a further setting")
    parser.add_argument("--json", type=Path, help="where the figures go too")
    parser.add_argument("--keep", action="store_true", help="keep the data in any case")
    return parser.parse_args()


class Folder:
    """One data folder from its first start to its last check."""

    def __init__(self, options, report, path):
        self.report = report
        self.server = Server(options.binary, path, options.set)
        self.ledger = Ledger(path.with_suffix(".ledger"))
        try:
            self.server.start()
            self._people(options)
        except BaseException:
            self.close()
            raise

    def _people(self, options):
        self.authors = [
            Author(self.server, self.ledger, self.report, f"writer-{n}")
            for n in range(options.writers)
        ]
        first = self.authors[0].connection
        body = {
            "preset": "public_chat",
            "power_level_content_override": {"state_default": 0},
        }
        rooms = [first.ask("POST", "/createRoom", body)["room_id"] for _ in range(options.rooms)]
        for author in self.authors:
            author.rooms = rooms
            for room in rooms:
                author.connection.ask("POST", f"/join/{quoted(room)}", {})
        self.reader = Reader(self.server, self.report, rooms)
        self.verifier = Verifier(
            self.server, self.ledger, self.report, self.authors, self.reader
        )
        self.phones = Phones(self.server, self.ledger, self.report, options.phones, rooms[0])

    def cycle(self, options, seed):
        """Write, kill, check the remains, restart, check again."""
        rng = random.Random(seed)
        threads = [threading.Thread(target=self.reader.follow)]
        for author in self.authors:
            own = random.Random(f"{seed} {author.name}")
            threads.append(threading.Thread(target=author.write, args=(own,)))
        for work, own in self.phones.threads(lambda name: random.Random(f"{seed} {name}")):
            threads.append(threading.Thread(target=work, args=(own,)))
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(*options.kill_after))
        if self.server.process.poll() is not None:
            self.report.fault("other", "the server ended by itself")
        self.server.kill()
        for thread in threads:
            thread.join()
        self._fsck(copied=True)
        self.report.ready_ms.append(self.server.start())
        for writer in (*self.authors, *self.phones.phones):
            try:
                writer.settle()
            except Refused as error:
                self.report.fault("other", f"{writer.name}, settling: {error}")
        self.verifier.after_restart()
        self.phones.after_restart()

    def end(self):
        """The last look at all of it, a clean stop, and a last fsck."""
        self.verifier.whole()
        self.phones.whole()
        trouble = self.server.stop()
        self.report.check(trouble is None, "other", f"the server: {trouble}")
        self._fsck(copied=False)

    def close(self):
        """Leaves no process behind."""
        if self.server.process:
            self.server.kill()

    def _fsck(self, copied):
        trouble = self.server.fsck(copied)
        self.report.check(trouble is None, "fsck", trouble)


def run(options, report, scratch):
    """All cycles; returns how many of them found nothing wrong."""
    clean = 0
    folder = None
    try:
        for cycle in range(options.cycles):
            before = report.faults
            if folder is None:
                folder = Folder(options, report, scratch / f"data-{cycle}")
            folder.cycle(options, f"{options.seed} {cycle}")
            last = cycle + 1 == options.cycles
            if last or (cycle + 1) % CYCLES_PER_FOLDER == 0:
                folder.end()
                if report.faults == 0 and not options.keep:
                    shutil.rmtree(folder.server.data)
                folder = None
            clean += report.faults == before
            if (cycle + 1) % 10 == 0:
                print(f"crash: {cycle + 1} cycles, {report.done['events']} events", flush=True)
    except (Dropped, Refused) as error:
        report.fault("other", str(error))
    finally:
        if folder:
            folder.close()
    return clean


def summary(options, report, clean, seconds):
    """The figures, for people and for `--json`."""
    ready = sorted(report.ready_ms) or [0]
    figures = {
        "seed": options.seed,
        "cycles": options.cycles,
        "clean": clean,
        "seconds": round(seconds, 1),
        "acknowledged": report.done,
        "wrong": report.wrong,
        "ready_ms": {
            "p50": round(statistics.median(ready), 1),
            "max": round(ready[-1], 1),
        },
    }
    done, wrong = report.done, report.wrong
    print(f"crash: seed {options.seed}, {options.cycles} kills, {options.writers} writers at once in "
          f"{options.rooms} rooms, {seconds:.0f} s")
    print(f"  acknowledged  {done['events']} events ({done['state']} of state), "
          f"{done['account data']} account data, {done['rooms']} rooms, {done['users']} users")
    print(f"  of {options.phones} phones   {done['one-time keys']} one-time keys, {done['claims']} claimed, "
          f"{done['messages']} messages to devices, {done['backups']} keys in backups, "
          f"{done['renames']} names of devices")
    print(f"  under way at the kill and settled after it: {done['repeated']}")
    print(f"  checks        {done['checks']}")
    print("  wrong         " + ", ".join(f"{what} {number}" for what, number in wrong.items()))
    print(f"  ready again   p50 {figures['ready_ms']['p50']} ms, "
          f"max {figures['ready_ms']['max']} ms")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def main():
    """Runs it all and says how it went."""
    options = arguments()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    report = Report()
    scratch = Path(tempfile.mkdtemp(prefix="causerie-crash-"))
    begun = time.monotonic()
    clean = run(options, report, scratch)
    report.check(report.done["events"] > 0, "other", "nothing was ever acknowledged")
    summary(options, report, clean, time.monotonic() - begun)
    if report.faults or options.keep:
        print(f"  data, ledger and log are in {scratch}")
    else:
        shutil.rmtree(scratch)
    failed = options.cycles - clean
    if report.faults and not failed:
        failed = 1
    print(f"crash: {clean} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
