"""Find words that the project does not use in the package, the README and the documentation.

``python .ci/check_words.py [FILE ...]`` prints ``file:line: found => advice`` for each and exits
with 1 if there are any. Without files it reads all that git tracks. The list is ``.ci/words.txt``.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
READ = ("recsys_ms/*.py", "recsys_ms/*.html", "README.md", "CONTRIBUTING.md", "docs/*.md")


def main(files: list[str]) -> int:
    """Print what was found; 1 if anything was."""
    words = []
    for line in (ROOT / ".ci" / "words.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern, advice = line.split(" => ")
            words.append((re.compile(pattern, re.IGNORECASE), advice))
    if not files:
        listed = subprocess.run(
            ["git", "ls-files", "--", *READ], cwd=ROOT, capture_output=True, text=True, check=True
        )
        files = listed.stdout.split()
    found = 0
    for file in files:
        for number, line in enumerate((ROOT / file).read_text().splitlines(), 1):
            for pattern, advice in words:
                if match := pattern.search(line):
                    found += 1
                    print(f"{file}:{number}: {match[0].strip()!r} => {advice}")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
