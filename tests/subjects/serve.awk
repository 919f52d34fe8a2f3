# A TCP counter in gawk: gawk -v port=N -f serve.awk. Lines `<number> <word>` are answered with
# `<number> <word> <times>`.
BEGIN {
    service = "/inet/tcp/" port "/0/0"
    while (1) {
        while ((service |& getline line) > 0) {
            split(line, field)
            if (field[1] > last) {
                last = field[1]
                answer = last " " field[2] " " ++times[field[2]]
            }
            print answer |& service
            fflush(service)
        }
        close(service)
    }
}
