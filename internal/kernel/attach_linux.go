//go:build amd64 || arm64

package kernel

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// A hook is a program and where it belongs.
type hook struct {
	program *ebpf.Program
	at      ebpf.AttachType
}

// These are the numbers of hooks of forConnections, and of forDatagrams, that only follow clients that were sent to
// endpoints. They come first, so that they see all of them.
const connectionWatchers, datagramWatchers = 3, 2

// forConnections returns the programs that are always attached.
func (p *Path) forConnections() []hook {
	return []hook{
		{p.objects.Follow, ebpf.AttachCGroupSockOps},
		{p.objects.Getpeername4, ebpf.AttachCgroupInet4GetPeername},
		{p.objects.Getpeername6, ebpf.AttachCgroupInet6GetPeername},
		{p.objects.Connect4, ebpf.AttachCGroupInet4Connect},
		{p.objects.Connect6, ebpf.AttachCGroupInet6Connect},
	}
}

// forDatagrams returns the programs for UDP sockets that are not connected.
func (p *Path) forDatagrams() []hook {
	return []hook{
		{p.objects.Recvmsg4, ebpf.AttachCGroupUDP4Recvmsg},
		{p.objects.Recvmsg6, ebpf.AttachCGroupUDP6Recvmsg},
		{p.objects.Sendmsg4, ebpf.AttachCGroupUDP4Sendmsg},
		{p.objects.Sendmsg6, ebpf.AttachCGroupUDP6Sendmsg},
	}
}

// attach attaches programs to the control group at dir, by links that end with this process. The caller must detach
// what it returns, also after an error.
func attach(dir string, hooks []hook) (links []link.Link, err error) {
	group, err := os.Open(dir)
	if err != nil {
		return nil, &Error{Reason: NoCgroup, Detail: "the control group cannot be opened", Err: err}
	}
	defer func() { _ = group.Close() }()
	for _, h := range hooks {
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(group.Fd()), Program: h.program, Attach: h.at})
		if errors.Is(err, unix.E2BIG) {
			return links, &Error{Reason: Full, Err: err, Detail: fmt.Sprintf("%s has as many eBPF programs (%v) as "+
				"the kernel allows, 64; each old process of Lictor that still has connections has one", dir, h.at)}
		}
		if err != nil {
			return links, diagnose(fmt.Sprintf("attach an eBPF program to %s (%v)", dir, h.at), err)
		}
		links = append(links, l)
	}
	return links, nil
}

func detach(links []link.Link) error {
	var errs []error
	for _, l := range links {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
