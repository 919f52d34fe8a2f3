# Adds numbers from stdin: `<number> <value>` is answered `<number total count>` in angle brackets.
$1 == last + 1 { total += $2; history[$1] = $2; last = $1 }
$1 == last && NF == 2 { printf "<%d %d %d>\n", $1, total, length(history); fflush() }
END { print "bye after " last }
