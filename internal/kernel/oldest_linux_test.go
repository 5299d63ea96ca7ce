//go:build amd64 || arm64

package kernel

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// A version is a version of Linux: major and minor.
type version [2]int

func (v version) after(other version) bool {
	return v[0] > other[0] || v[0] == other[0] && v[1] > other[1]
}

// The tables below have all that the programs use of the kernel, and since which version it can be used as they use it.
// Source: the commits to Linux that are named, https://github.com/iovisor/bcc/blob/master/docs/kernel-versions.md, and
// https://docs.ebpf.io/linux/. The tables are closed: what is new in a program must be looked up and added here.
var (
	sinceMapType = map[ebpf.MapType]version{
		ebpf.Hash:      {3, 19},
		ebpf.Array:     {3, 19},
		ebpf.LRUHash:   {4, 10},
		ebpf.SkStorage: {5, 2},
		ebpf.RingBuf:   {5, 8},
	}
	sinceMapFlag = map[uint32]version{
		1 << 0:  {4, 6}, // BPF_F_NO_PREALLOC
		1 << 7:  {5, 2}, // BPF_F_RDONLY_PROG
		1 << 10: {5, 5}, // BPF_F_MMAPABLE, fc9702273e2e
	}
	sinceAttachType = map[ebpf.AttachType]version{
		ebpf.AttachCGroupSockOps:          {4, 13},
		ebpf.AttachCGroupInet4Connect:     {4, 17},
		ebpf.AttachCGroupInet6Connect:     {4, 17},
		ebpf.AttachCGroupUDP4Sendmsg:      {4, 18},
		ebpf.AttachCGroupUDP6Sendmsg:      {4, 18},
		ebpf.AttachCGroupUDP4Recvmsg:      {5, 2}, // 983695fa6765
		ebpf.AttachCGroupUDP6Recvmsg:      {5, 2},
		ebpf.AttachCgroupInet4GetPeername: {5, 8}, // 1b66d253610c
		ebpf.AttachCgroupInet6GetPeername: {5, 8},
	}
	// A helper may have come to a type of programs later than to others.
	sinceHelper = map[ebpf.ProgramType]map[asm.BuiltinFunc]version{
		ebpf.CGroupSockAddr: {
			asm.FnMapLookupElem:     {4, 17},
			asm.FnMapUpdateElem:     {4, 17},
			asm.FnKtimeGetNs:        {4, 17},
			asm.FnGetSocketCookie:   {4, 19}, // d692f1138a4b
			asm.FnSkStorageGet:      {5, 3},  // fb85c4a730af
			asm.FnGetNetnsCookie:    {5, 7},  // f318903c0bf4
			asm.FnGetCurrentPidTgid: {5, 7},  // merged by 2cf69d3fa50e
			asm.FnGetCurrentComm:    {5, 7},
			asm.FnSkcToTcp6Sock:     {5, 10}, // 1df8f55a37bd; needs CAP_PERFMON
			asm.FnSkcToUdp6Sock:     {5, 10},
		},
		ebpf.SockOps: {
			asm.FnMapLookupElem:     {4, 13},
			asm.FnKtimeGetNs:        {4, 13},
			asm.FnSockOpsCbFlagsSet: {4, 16}, // b13d88072172
			asm.FnSkStorageGet:      {5, 3},  // 1314ef561102
			asm.FnRingbufReserve:    {5, 8},  // 457f44363a88
			asm.FnRingbufSubmit:     {5, 8},
		},
	}
	// The programs of all architectures are the same, but each architecture compiles them in its own way.
	sinceAtomic = map[string]map[asm.AtomicOp]version{
		"amd64": {asm.AddAtomic: {3, 19}, asm.FetchAdd: {5, 12}, asm.Xchg: {5, 12}}, // 5ca419f2864a
		"arm64": {asm.AddAtomic: {3, 19}, asm.FetchAdd: {5, 18}, asm.Xchg: {5, 18}}, // 1902472b4fa9
	}
)

// sinceInstruction returns since which version the kernel runs an instruction, other than for what it calls and for
// atomic operations.
func sinceInstruction(ins *asm.Instruction) version {
	op := ins.OpCode
	switch {
	case (op.Class().IsLoad() || op.Class().IsStore()) && op.Mode() == asm.MemSXMode,
		op.Class().IsALU() && ins.Offset != 0, // signed division, and moves that extend the sign
		op.Class() == asm.ALU64Class && op.ALUOp() == asm.Swap,
		op.Class() == asm.Jump32Class && op.JumpOp() == asm.Ja:
		return version{6, 6} // clang makes them only with -mcpu=v4
	case op.Class() == asm.Jump32Class:
		return version{5, 1}
	}
	return version{3, 18}
}

// TestOldestKernelHasAllThatTheProgramsUse checks that the programs for connections and datagrams use nothing that the
// oldest kernel lacks which the documentation names.
func TestOldestKernelHasAllThatTheProgramsUse(t *testing.T) {
	spec, err := loadProgram()
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		var oldest version
		if _, err := fmt.Sscanf(oldestKernel(arch), "%d.%d", &oldest[0], &oldest[1]); err != nil {
			t.Fatal(err)
		}
		check := func(what string, since version, known bool) {
			t.Helper()
			switch {
			case !known:
				t.Errorf("%s: since which version does Linux have that?", what)
			case since.after(oldest):
				t.Errorf("%s: Linux has that for %s since %v, after %v", what, arch, since, oldest)
			}
		}
		for name, m := range spec.Maps {
			checkMap(name, m, check)
		}
		for name, p := range spec.Programs {
			since, known := sinceAttachType[p.AttachType]
			check(fmt.Sprint(name, " attached to ", p.AttachType), since, known)
			for i := range p.Instructions {
				checkInstruction(p, &p.Instructions[i], sinceAtomic[arch], check)
			}
		}
	}
}

func checkMap(name string, m *ebpf.MapSpec, check func(what string, since version, known bool)) {
	since, known := sinceMapType[m.Type]
	check(fmt.Sprint(name, " of type ", m.Type), since, known)
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if uint32(m.Flags)&bit != 0 {
			since, known := sinceMapFlag[bit]
			check(fmt.Sprintf("%s with flag %#x", name, bit), since, known)
		}
	}
}

func checkInstruction(
	p *ebpf.ProgramSpec, ins *asm.Instruction, atomics map[asm.AtomicOp]version,
	check func(what string, since version, known bool),
) {
	what := fmt.Sprintf("%s: %v", p.Name, ins)
	check(what, sinceInstruction(ins), true)
	if ins.IsBuiltinCall() {
		since, known := sinceHelper[p.Type][asm.BuiltinFunc(ins.Constant)]
		check(what, since, known)
	}
	if ins.IsKfuncCall() {
		check(what, version{}, false)
	}
	if op := ins.OpCode.AtomicOp(); op != asm.InvalidAtomic {
		since, known := atomics[op]
		check(what, since, known)
	}
}

// TestCutterCallsOnlyWhatIsLookedFor checks that the programs that walk over sockets call no function of the kernel,
// and use no iterator, of which an error would not say that the kernel lacks it.
func TestCutterCallsOnlyWhatIsLookedFor(t *testing.T) {
	cutter, err := loadCutter()
	if err != nil {
		t.Fatal(err)
	}
	lister, err := loadLister()
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for _, p := range slices.Concat(slices.Collect(maps.Values(cutter.Programs)),
		slices.Collect(maps.Values(lister.Programs))) {
		used := []string{"bpf_iter_" + p.AttachTo}
		for i := range p.Instructions {
			if ins := &p.Instructions[i]; ins.IsKfuncCall() {
				used, calls = append(used, ins.Reference()), calls+1
			}
		}
		for _, function := range used {
			missing := missingForCutter(func(f string) bool { return f != function })
			if !strings.HasPrefix(missing, function+" (") {
				t.Errorf("%s uses %s, and without it the error says %q", p.Name, function, missing)
			}
		}
	}
	if calls == 0 {
		t.Error("no program calls a function of the kernel, so the test shows nothing")
	}
}

// TestDocumentationNamesTheOldestKernel checks the page about the kernel path.
func TestDocumentationNamesTheOldestKernel(t *testing.T) {
	page, err := os.ReadFile("../../docs/kernel-path.md")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("- Linux %s or later, on arm64 %s or later,", oldestKernel("amd64"), oldestKernel("arm64"))
	if !strings.Contains(string(page), want) {
		t.Errorf("docs/kernel-path.md does not say %q", want)
	}
}
