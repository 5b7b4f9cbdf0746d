#!/usr/bin/env bash
# Writes DIR/train.txt and DIR/held-out.txt from Debian's bible-kjv: Genesis to Acts to learn from, the Epistles and the
# Revelation held out. Verse numbers are cut off.
set -euo pipefail
dir=${1:?usage: demo_text.sh DIR}
command -v bible >/dev/null || { echo "demo: the program 'bible' is missing; run make setup" >&2; exit 1; }
verses() { bible -f "$1" </dev/null | sed -E 's/^[0-9]?[A-Za-z]+[0-9]+:[0-9]+ //'; }
verses 'Genesis1:1-Acts28:31' > "$dir/train.txt"
verses 'Romans1:1-Revelation22:21' > "$dir/held-out.txt"
