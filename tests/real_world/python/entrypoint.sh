#!/bin/sh
set -eu
echo "starting with $WORKERS workers"
exec "$@"
