# Reads commands from a FIFO and executes them; each is numbered and done once: fifo.sh FIFO
last=0 answer=
declare -A count
while :; do
    while read -r number command; do
        if [ "$number" -gt "$last" ]; then
            last=$number
            eval "$command"
            answer=$reply
        fi
        echo "<$number $answer>"
    done <"$1"
done
