# interpose.def -> the linker's version script: exactly those symbols, nothing else.
1i { global:
s/^(CALL|CHECKED)\([^,]*, *([A-Za-z0-9_]+),.*/  \2;/p
s/^(TWIN|OWN)\(([A-Za-z0-9_]+).*/  \2;/p
$a local: *; };
