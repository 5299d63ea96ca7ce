package kernel

// `make generate` runs this, and sets the flags of clang. The generated files are committed, so a build needs no clang.

//go:generate ../../bin/bpf2go -target bpfel -tags linux -type counters -type event program bpf/path.c
//go:generate ../../bin/bpf2go -target bpfel -tags linux cutter bpf/cut.c
