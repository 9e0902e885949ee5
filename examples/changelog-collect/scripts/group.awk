# Groups commits by kind. Reads from collect.sh, newest first, for each commit
#   commit <TAB> hash <TAB> short hash <TAB> date <TAB> author <TAB> subject
# and its body, indented by four spaces.

/^commit\t/ {
    n++
    split($0, field, "\t")
    hash[n] = field[2]
    short[n] = field[3]
    newest = newest == "" ? field[4] : newest
    oldest = field[4]
    if (!seen[field[5]]++) authors = authors (authors == "" ? "" : ", ") field[5]
    # The subject may have tabs of its own.
    subject[n] = substr($0, length(field[1] field[2] field[3] field[4] field[5]) + 6)
    in_note = 0
    next
}

{
    sub(/^    /, "")
    sub(/[ \t]+$/, "")
}

# The first line below `Merge ...` is the title of the pull request.
subject[n] ~ /^Merge (pull request|branch|tag|remote-tracking branch) / && $0 != "" && !titled[n]++ {
    number = ""
    if (match(subject[n], /^Merge pull request #[0-9]+/)) number = substr(subject[n], 20, RLENGTH - 19)
    subject[n] = $0 (number == "" || index($0, number) ? "" : " (" number ")")
}

/^This reverts commit [0-9a-f]+/ { reverts[n] = $4; sub(/[^0-9a-f].*/, "", reverts[n]) }
/^\(cherry picked from commit [0-9a-f]+\)/ { picked[n] = $5; sub(/\)/, "", picked[n]) }

/^BREAKING[ -]CHANGE: / { breaking[n] = 1; in_note = 1 }
in_note && (/^$/ || (/^[A-Z][A-Za-z-]*: / && !/^BREAKING/)) { in_note = 0 }
in_note { note(n, $0) }
/^(Fix(es)?|Close[sd]?|Resolve[sd]?|Bug(-Url)?|Issue|See merge request)[: ]+.*([#!][0-9]|[A-Z]-[0-9]|:\/\/|[0-9a-f][0-9a-f][0-9a-f])/ { note(n, $0) }

{ cves(n, $0) }

END {
    for (i = 1; i <= n; i++) cves(i, subject[i])
    # Newest first: the revert of a revert cancels the revert, and the first change stays.
    for (i = 1; i <= n; i++) {
        if (!(i in reverts) || i in gone) continue
        for (j = i + 1; j <= n; j++) {
            if (index(hash[j], reverts[i]) == 1 || (j in picked && index(picked[j], reverts[i]) == 1)) {
                gone[i] = gone[j] = 1
                break
            }
        }
    }
    printf "\n%d %s, %s to %s, by %s\n", n, n == 1 ? "commit" : "commits", oldest, newest, authors
    for (i = 1; i <= n; i++) {
        kind = group(i)
        entries[kind] = entries[kind] "- " short[i] " " subject[i] "\n" notes[i]
    }
    total = split("Breaking,Security,Added,Fixed,Performance,Dependencies,Documentation,Internal,Other,Reverted in the range", order, ",")
    for (i = 1; i <= total; i++)
        if (order[i] in entries) printf "\n## %s\n\n%s", order[i], entries[order[i]]
}

function note(i, text) {
    if (index(notes[i], "  " text "\n") == 0) notes[i] = notes[i] "  " text "\n"
}

function cves(i, text) {
    while (match(text, /CVE-[0-9][0-9][0-9][0-9]-[0-9]+/)) {
        security[i] = 1
        note(i, substr(text, RSTART, RLENGTH))
        text = substr(text, RSTART + RLENGTH)
    }
}

function group(i,    text, type) {
    text = subject[i]
    if (i in gone) return "Reverted in the range"
    if (i in breaking || text ~ /^[a-z]+(\([^)]*\))?!: /) return "Breaking"
    if (i in security) return "Security"
    if (text ~ /^[a-z]+\(deps[^)]*\): / || text ~ /^([a-z]+: )?(Bump|bump|Update dependency) .* (to|from) /) return "Dependencies"
    if (text !~ /^[a-z]+(\([^)]*\))?: /) return "Other"
    type = text
    sub(/[(:].*/, "", type)
    if (type == "feat") return "Added"
    if (type == "fix") return "Fixed"
    if (type == "perf") return "Performance"
    if (type == "docs") return "Documentation"
    if (type ~ /^(build|chore|ci|refactor|style|test|tests)$/) return "Internal"
    return "Other"
}
