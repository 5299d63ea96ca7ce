package e2e

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A firewall drops the first packet of TCP connections to certain ports in this network namespace.
type firewall struct {
	conn  *nftables.Conn
	table *nftables.Table
	chain *nftables.Chain
}

func newFirewall(t *testing.T) *firewall {
	t.Helper()
	conn, err := nftables.New()
	must(t, err)
	f := &firewall{conn: conn}
	f.table = conn.AddTable(&nftables.Table{Name: "e2e", Family: nftables.TableFamilyIPv4})
	f.chain = conn.AddChain(&nftables.Chain{
		Name: "in", Table: f.table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput,
		Priority: nftables.ChainPriorityFilter,
	})
	if err := conn.Flush(); err != nil {
		testproc.Cannot(t, "nf_tables cannot be used", err)
	}
	return f
}

// drop is `nft add rule e2e in tcp dport PORT tcp flags & (syn|ack) == syn drop`. A client gets no answer, not even by
// ICMP.
func (f *firewall) drop(t testing.TB, addr netip.AddrPort) {
	t.Helper()
	f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: f.chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(addr.Port())},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x12}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x02}},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	must(t, f.conn.Flush())
}

// lift removes all rules.
func (f *firewall) lift(t testing.TB) {
	t.Helper()
	f.conn.FlushChain(f.chain)
	must(t, f.conn.Flush())
}

// A firewall begins to drop packets to a healthy instance, and later stops. Consul does not know of it.
func TestInstanceFirewalledUnderLoadIsNoticedByNoClient(t *testing.T) {
	t.Parallel()
	findConsul(t) // before the namespace, where nothing can be downloaded
	if !testnet.Inside(t, lictorVar+"="+lictorPath(t)) {
		return
	}
	wall := newFirewall(t)
	c := startConsul(t, testconsul.Options{})
	instances := []*greeter{startGreeter(t, "a"), startGreeter(t, "b"), startGreeter(t, "c")}
	for _, i := range instances {
		c.register(t, "web", i.name, i.addr)
	}
	l := runLictor(t, consulBlock(c)+service("web"))
	web, b := l.addr(t, "web"), instances[1]
	awaitRotation(t, web, "a", "b", "c")

	// Each dial to it lasts for connect_timeout. If it were not left out, 6000 clients, 16 at a time, would take
	// minutes.
	const clients = 6000
	done := make(chan struct{})
	var served map[string]int
	var failed int
	go func() {
		defer close(done)
		served, failed = load(t, web, clients, func() { wall.drop(t, b.addr) })
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("clients are served as if the instance were not left out")
		<-done
	}
	if failed > 0 {
		t.Errorf("%d clients of %d failed, want none", failed, clients)
	}
	if served["a"] < clients/3 || served["c"] < clients/3 || served["b"] > clients/3 {
		t.Errorf("got %v, want the others to have taken over", served)
	}
	if conn, err := net.DialTimeout("tcp", b.addr.String(), 200*time.Millisecond); err == nil {
		_ = conn.Close()
		t.Fatal("the firewall lets connections through")
	} else if e, ok := err.(net.Error); !ok || !e.Timeout() {
		t.Fatalf("the firewall answers: %v", err)
	}

	wall.lift(t)
	awaitRotation(t, web, "a", "b", "c")
}
