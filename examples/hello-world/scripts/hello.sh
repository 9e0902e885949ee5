#!/bin/sh
# Greets, and says where the skill is: hello.sh [NAME]
set -eu
skill=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
echo "Hello, ${1:-world}! This is the skill ${skill##*/}, running from $skill."
