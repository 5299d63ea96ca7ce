package kernel

// `make generate` runs this. The generated files are committed, so a build needs no clang.

//go:generate ../../bin/bpf2go -target bpfel -tags linux -no-global-types -type service -type endpoint -type listener -type address -type event -type set -type counters -cflags "-O2 -g -Wall -Werror -mcpu=v3" program bpf/path.c
