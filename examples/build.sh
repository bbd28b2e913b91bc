#!/usr/bin/env bash
# Builds the program $2 in the profile $1 and prints its path.
set -euo pipefail
cd "$(dirname "$0")/.."
${CARGO:-cargo} build --locked --profile "$1" --bin "$2" >&2
# the host's triple is part of the path
find "${CARGO_TARGET_DIR:-target}" -maxdepth 3 -path "*/$1/$2" -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2
