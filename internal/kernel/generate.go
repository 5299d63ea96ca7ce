package kernel

// `make generate` runs this, and sets the flags of clang. The generated files are committed, so a build needs no clang.

//go:generate -command bpf2go ../../bin/bpf2go -target bpfel -tags linux
//go:generate bpf2go -type counters -type event -type progress -type process program bpf/path.c
//go:generate bpf2go cutter bpf/cut.c
//go:generate bpf2go lister bpf/list.c
