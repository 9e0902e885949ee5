#!/bin/sh
# Lists the commits between two releases, grouped. See usage() and ../SKILL.md.
set -eu
LC_ALL=C
export LC_ALL
unset CDPATH

usage() {
    cat <<'USAGE'
Usage: collect.sh [OPTION]... [--] [PATH]...
List the commits between two releases as Markdown, grouped by kind.

  -C, --repo DIR      the repository (default: the current directory)
  -f, --from REV      the old release (default: the newest tag before REV of --to;
                      without a tag, the beginning)
  -t, --to REV        the new release (default: HEAD)
  -m, --match GLOB    tags that count as releases when --from is not given
      --first-parent  one entry per merge, not one per commit
  -h, --help          print this
PATH limits the list to commits that change it; relative to the repository.

Exit status: 0 changes printed, 1 nothing changed, 2 could not tell.
USAGE
}

die() {
    printf 'collect.sh: %s\n' "$*" >&2
    exit 2
}

# The commit that a revision names. An option in its place is refused rather than handed to git.
commit() {
    case $1 in '' | -*) die "not a revision: '$1'" ;; esac
    git rev-parse --verify --quiet "$1^{commit}" || die "no such revision: '$1'"
}

repo=. from='' to=HEAD match='*' merges=--no-merges
while [ $# -gt 0 ]; do
    case $1 in
    -C | --repo | -f | --from | -t | --to | -m | --match)
        [ $# -ge 2 ] || die "$1 needs a value"
        case $1 in
        -C | --repo) repo=$2 ;;
        -f | --from) from=$2 ;;
        -t | --to) to=$2 ;;
        *) match=$2 ;;
        esac
        shift
        ;;
    --first-parent) merges=--first-parent ;;
    -h | --help) usage && exit ;;
    --) shift && break ;;
    -*) die "unknown option: $1 (see --help)" ;;
    *) break ;;
    esac
    shift
done

group=$(cd -- "$(dirname -- "$0")" && pwd)/group.awk
for tool in git awk; do
    command -v "$tool" >/dev/null || die "$tool is not installed"
done
cd -- "$repo" || exit 2
top=$(git rev-parse --show-toplevel) || exit 2
cd -- "$top"
[ "$(git rev-parse --is-shallow-repository)" = false ] ||
    echo "collect.sh: warning: shallow clone, older commits and tags may be missing" >&2

new=$(commit "$to")
if [ -z "$from" ]; then
    # The parent, so that a release does not become its own predecessor.
    from=$(git describe --tags --abbrev=0 --match "$match" "$new^" 2>/dev/null) || from=''
fi
if [ -n "$from" ]; then
    # Both sides, without what the old release has got too under another hash.
    old=$(commit "$from")
    range="--right-only --cherry-pick $old...$new"
else
    range=$new
fi

# The body is indented, so that no line in it can pass for the line of a commit; control characters go.
# shellcheck disable=SC2086  # range is options and hashes, made above
log=$(git --no-pager log --no-color --no-decorate --no-notes --no-show-signature --encoding=UTF-8 $merges \
    --format='commit%x09%H%x09%h%x09%as%x09%aN%x09%s%n%w(0,4,4)%b%w(0,0,0)' $range -- "$@") || exit 2
[ -n "$log" ] || { echo "collect.sh: nothing changed from ${from:-the beginning} to $to" >&2 && exit 1; }

printf '# Changes from %s to %s\n' "${from:-the beginning}" "$to"
printf '%s\n' "$log" | tr -d '\000-\010\013-\037\177' | awk -f "$group"
